// SPDX-License-Identifier: Apache-2.0
// The servo of servo.h. How it works, with its figures: docs/clock.md.
//
// A Kalman filter of two states (offset of card time, frequency of the oscillator) follows the pulses. Its
// noise is learned from second differences of the oscillator's free phase over 1, 2, 4 ... 2048 s, which are
// also what a prediction by the mean frequency over m seconds is wrong by, m seconds on: the bound in
// holdover.
#include "servo.h"

#include <stddef.h>

#include "fixed.h"

#define AS_PER_S INT64_C(1000000000000000000)
#define AS_PER_PS INT64_C(1000000)
#define ONE_Q32 (UINT64_C(1) << 32)
#define MOST_PS2 (INT64_C(1) << 62)  // a variance is held here: a sigma of 2 ms
#define GATE 6                       // pulses further off than so many sigma are refused
#define COVER 4                      // the bound, in sigma
#define PRIOR 4                      // how many second differences the prior is worth
#define ENOUGH 16                    // second differences that an octave needs before it is believed
#define CONTRADICTIONS 10            // seconds of one contradiction that make a dispute
#define VOUCHED_S 1                  // a message with a fix vouches for this second's pulse and the next one
#define FALSE_FIX_S 28               // receivers report a fix for 20 s after they have lost their antenna
#define LONG_S 1000                  // longer than these two

typedef struct {
    servo_state* s;
    const servo_input* in;
    servo_output* out;
    uint32_t events;
    bool saturated;
    bool measured;        // there is a pulse to look at
    bool accepted;        // and it went into the filter
    bool doubted;         // the receiver itself says that it is worse than usual
    uint64_t epoch_s;     // the second whose pulse was due last
    uint64_t elapsed_s;   // since the one before
    int64_t measured_as;  // pulse against its second, qErr applied
    int64_t noise_ps2;    // its variance, without the receiver's wander
    uint32_t told_ps;     // the receiver's own estimate
} step;

static __attribute__((noinline)) int64_t limited(int64_t value, int64_t lowest, int64_t highest) {
    return value < lowest ? lowest : value > highest ? highest : value;
}

static int64_t square(int64_t value, bool* saturated) {
    bool full = false;
    const int64_t result = fixed_mul(value, value, &full);
    if (full || result > MOST_PS2) {
        *saturated = true;
        return MOST_PS2;
    }
    return result;
}

static int64_t sum(int64_t a, int64_t b, bool* saturated) {
    const int64_t result = fixed_add(a, b, saturated);
    return limited(result, -MOST_PS2, MOST_PS2);
}

// Not inline: a division of 64 bits in ten places.
static __attribute__((noinline)) int64_t magnitude_ps(int64_t as) {
    return (int64_t)(fixed_magnitude(as) / (uint64_t)AS_PER_PS);
}

static int64_t root(int64_t variance) {
    return variance <= 0 ? 0 : (int64_t)fixed_sqrt((uint64_t)variance);
}

static int64_t q32_to_as(int64_t q32, bool* saturated) {
    return fixed_mul_shift(q32, AS_PER_S, 32, saturated);
}

// ---- Oscillator -------------------------------------------------------------------------------------------

static uint32_t lag_of(unsigned octave) {
    return octave < 2 ? octave + 1 : 4;
}  // ring entries that span m
static uint64_t stride_of(unsigned octave) {
    return octave < 2 ? 1 : UINT64_C(1) << (octave - 2);
}

// Variance of a pulse, qErr taken off or not.
static int64_t pulse_noise_ps2(const servo_config* c, bool corrected) {
    bool full = false;
    int64_t variance =
        square(c->jitter_ps, &full) + square(c->capture_ps, &full) / 12 + 4516;  // 2^-32 s / sqrt 12
    if (!corrected) variance = sum(variance, square(c->sawtooth_ps, &full) / 3, &full);
    return limited(variance, 1, MOST_PS2);
}

// Mean square of a second difference over m seconds by the oscillator's noise alone, in ps^2:
// 2 m white + 2 m^2 flicker + 2/3 m^3 walk (twice m^2 times the Allan variance, IEEE 1139).
static int64_t difference_ps2(int64_t white_ps2, int64_t flicker_fs2, int64_t walk_fs2, int64_t m,
                              bool* full) {
    int64_t variance = fixed_mul(white_ps2, 2 * m, full);
    variance = sum(variance, fixed_mul_div(flicker_fs2, 2 * m * m, 1000000, full), full);
    return sum(variance, fixed_mul(fixed_mul_div(walk_fs2, m * m, 1500000, full), m, full), full);
}

// The same by what servo_config says, pulses and a steady change of temperature included.
static int64_t prior_ps2(const servo_config* c, unsigned j, bool* full) {
    const int64_t m = INT64_C(1) << j;
    int64_t d = difference_ps2(square(c->white_ppt, full), square((int64_t)c->flicker_ppt * 1000, full),
                               square((int64_t)c->walk_ppt * 1000, full), m, full);
    d = sum(d, 6 * pulse_noise_ps2(c, true), full);
    return sum(d, square((int64_t)c->temperature_ppt * m * m / 3600, full), full);
}

static void start_learning(servo_state* s) {
    const servo_config* c = &s->config;
    bool full = false;
    s->white_ps2 = limited(square(c->white_ppt, &full), 1, MOST_PS2);
    s->flicker_fs2 = square((int64_t)c->flicker_ppt * 1000, &full);
    s->walk_fs2 = limited(square((int64_t)c->walk_ppt * 1000, &full), 1, MOST_PS2);
    for (unsigned j = 0; j < SERVO_OCTAVES; j++)
        s->octave[j] = (servo_octave){.mean_ps2 = prior_ps2(c, j, &full), .count = PRIOR};
}

// Mean square of octave j, raised by what its few samples leave open. An octave that has none of its own is
// at least what the last one that has them grows to by a random walk of frequency.
static int64_t octave_ps2(const servo_state* s, unsigned j, bool* full) {
    int64_t own = s->octave[j].mean_ps2;
    if (!s->config.learn) return own;
    unsigned last = j;
    while (last > 0 && !s->octave[last].learned) last--;
    const servo_octave* o = &s->octave[last];
    if (o->learned) {
        int64_t grown = o->mean_ps2;
        for (unsigned i = last; i < j; i++) grown = limited(grown, 0, MOST_PS2 / 8) * 8;
        if (grown > own) own = grown;
    }
    return sum(own, own / (int64_t)(fixed_sqrt(o->count) + 1) * 4, full);
}

// What a prediction t seconds ahead is wrong by, in ps^2, by the second differences seen.
static int64_t prediction_ps2(const servo_state* s, int64_t t, bool* full) {
    if (t < 1) t = 1;
    unsigned j = 0;
    while (j + 1 < SERVO_OCTAVES && t >= INT64_C(2) << j) j++;
    const int64_t m = INT64_C(1) << j, here = octave_ps2(s, j, full);
    if (j + 1 == SERVO_OCTAVES) {  // beyond the longest: as a random walk of frequency grows
        const int64_t once = fixed_mul_div(here, t, m, full);
        return limited(fixed_mul_div(fixed_mul_div(once, t, m, full), t, m, full), here, MOST_PS2);
    }
    const int64_t next = octave_ps2(s, j + 1, full);
    return here + fixed_mul_div(next - here, t - m, m, full);
}

// Filter noise from the second differences.
static void learn(servo_state* s, bool* full) {
    const int64_t pulse = 6 * pulse_noise_ps2(&s->config, s->qerr_use != SERVO_QERR_USES - 1);
    const servo_octave* o = s->octave;
    // Octaves 0 and 1 are two equations for white and walk: d0 = 2 w + 2/3 q, d1 = 4 w + 16/3 q.
    const int64_t d0 = limited(o[0].mean_ps2 - pulse, 1, MOST_PS2), d1 = o[1].mean_ps2 - pulse;
    const int64_t walk = limited((d1 - 2 * limited(d0, 0, MOST_PS2 / 2)) / 4, 0, d0);
    s->white_ps2 = limited((d0 - walk * 2 / 3) / 2, 1, MOST_PS2);
    // The walk that justifies the longest averaging: the least of what any octave would call for.
    int64_t least = INT64_MAX, floor = INT64_MAX;
    for (unsigned j = 0; j < SERVO_OCTAVES; j++) {
        const int64_t m = INT64_C(1) << j;
        if (!o[j].learned) break;
        const int64_t expected = sum(pulse, fixed_mul(s->white_ps2, 2 * m, full), full);
        int64_t excess = o[j].mean_ps2 - expected;
        const bool seen = excess > expected / 2;
        if (!seen) excess = expected / 2;
        int64_t walk_fs2 = fixed_mul_div(fixed_mul_div(excess, 1500000, m * m, full), 1, m, full);
        if (walk_fs2 < least) least = walk_fs2;
        const int64_t allan_fs2 = fixed_mul_div(o[j].mean_ps2, 500000, m * m, full);
        if (allan_fs2 < floor) floor = allan_fs2;
    }
    if (least != INT64_MAX) s->walk_fs2 = limited(least, 1, MOST_PS2);
    if (floor != INT64_MAX) s->flicker_fs2 = floor;
}

// Takes the free phase of second epoch_s into the octaves.
static void observe(step* t, uint64_t phase_as, bool good) {
    servo_state* s = t->s;
    for (unsigned j = 0; j < SERVO_OCTAVES; j++) {
        servo_octave* o = &s->octave[j];
        const uint64_t stride = stride_of(j);
        const uint32_t lag = lag_of(j), size = 2 * lag + 1;
        if (t->elapsed_s > 1 && t->elapsed_s >= stride) o->held = 0;  // entries may have been left out
        if (t->epoch_s % stride != 0) continue;
        if (!good) {
            o->held = 0;
            continue;
        }
        o->head = o->head + 1 < size ? o->head + 1 : 0;
        o->phase_as[o->head] = phase_as;
        if (o->held < size) o->held++;
        if (o->held < size) continue;
        const uint64_t middle = o->phase_as[(o->head + size - lag) % size];
        const uint64_t first = o->phase_as[(o->head + 1) % size];
        const int64_t d_ps = (int64_t)(phase_as - 2 * middle + first) / AS_PER_PS;
        int64_t d_ps2 = square(d_ps, &t->saturated);
        if (!s->config.learn) continue;
        const uint32_t longest = j < 6 ? 512 : 128;
        if (o->count < longest) o->count++;
        // One sample can at most double the mean: a fault must not be learned as noise.
        if (o->count > ENOUGH) d_ps2 = limited(d_ps2, 0, fixed_mul(o->mean_ps2, o->count, &t->saturated));
        o->mean_ps2 = limited(o->mean_ps2 + (d_ps2 - o->mean_ps2) / (int64_t)o->count, 1, MOST_PS2);
        if (o->count == ENOUGH + PRIOR && !o->learned) {  // enough of its own: the prior leaves
            const int64_t prior = prior_ps2(&s->config, j, &t->saturated);
            const int64_t rest = o->mean_ps2 / ENOUGH * o->count - prior / ENOUGH * PRIOR;
            o->mean_ps2 = limited(rest, o->mean_ps2 / 64 + 1, MOST_PS2);
            o->count = ENOUGH;
            o->learned = 1;
        }
    }
    if (s->config.learn && t->epoch_s % 16 == 0 && s->octave[0].count >= ENOUGH) learn(s, &t->saturated);
}

// Ageing: the mean difference of the frequency between blocks of 1024 s, where it stands out.
static void observe_ageing(step* t, uint64_t phase_as, bool good) {
    servo_state* s = t->s;
    if (!good || t->elapsed_s > 1) s->ageing_held = 0;
    if (t->epoch_s % 1024 != 0 || !good) return;
    if (s->ageing_held > 0) {
        const int64_t block = (int64_t)(phase_as - s->ageing_phase_as) / 1024;
        if (s->ageing_held > 1) {
            const int64_t difference = block - s->ageing_block_as_s;
            const int64_t fs2 = square(difference / 1000, &t->saturated);
            if (s->ageing_count < 1024) {
                s->ageing_count++;
            } else {  // the last 12 days or so
                s->ageing_sum_as_s -= s->ageing_sum_as_s / 1024;
            }
            s->ageing_sum_as_s = fixed_add(s->ageing_sum_as_s, difference, &t->saturated);
            s->ageing_square_fs2 += (fs2 - s->ageing_square_fs2) / (int64_t)s->ageing_count;
            const int64_t mean = s->ageing_sum_as_s / (int64_t)s->ageing_count / 1000;
            const int64_t scatter = limited(s->ageing_square_fs2 - square(mean, &t->saturated), 1, MOST_PS2);
            // Sixteen blocks at least, and five sigma.
            const bool seen = s->ageing_count >= 16 &&
                              square(mean, &t->saturated) / 25 > scatter / (int64_t)s->ageing_count;
            s->ageing_as_s2 = seen ? mean * 1000 / 1024 : 0;
        }
        s->ageing_block_as_s = block;
        s->ageing_held = 2;
    } else {
        s->ageing_held = 1;
    }
    s->ageing_phase_as = phase_as;
}

// ---- Filter -----------------------------------------------------------------------------------------------

// Rate of card time against TAI, minus 1, in 1e-18.
static int64_t rate_as_s(step* t) {
    const servo_state* s = t->s;
    const int64_t both = fixed_add(s->frequency_as_s, s->steer_as_s, &t->saturated);
    const int64_t cross = fixed_mul_div(s->frequency_as_s, s->steer_as_s, AS_PER_S, &t->saturated);
    return fixed_add(both, cross, &t->saturated);
}

// Moves the offset on by a span of time; the clock's own part is kept apart, so that offset - control is the
// free phase.
static void advance(step* t, int64_t span_q32) {
    servo_state* s = t->s;
    const int64_t all = fixed_mul_shift(rate_as_s(t), span_q32, 32, &t->saturated);
    const int64_t own = fixed_mul_shift(s->frequency_as_s, span_q32, 32, &t->saturated);
    s->offset_as = fixed_add(s->offset_as, all, &t->saturated);
    s->control_as += (uint64_t)all - (uint64_t)own;
}

static void move(servo_state* s, int64_t by_as, bool* saturated) {
    s->offset_as = fixed_add(s->offset_as, by_as, saturated);
    s->control_as += (uint64_t)by_as;
}

// Covariance n seconds on.
static void spread(step* t, int64_t n) {
    servo_state* s = t->s;
    bool* full = &t->saturated;
    int64_t more = fixed_mul_div(s->p_xy, 2 * n, 1000, full);
    more = sum(more, fixed_mul_div(fixed_mul_div(s->p_yy_fs2, n, 1000, full), n, 1000, full), full);
    more = sum(more, fixed_mul(s->white_ps2, n, full), full);
    const int64_t walked = fixed_mul(s->walk_fs2, n, full);
    more = sum(more, fixed_mul_div(fixed_mul_div(walked, n, 3000, full), n, 1000, full), full);
    s->p_xx_ps2 = limited(sum(s->p_xx_ps2, more, full), 1, MOST_PS2);
    s->p_xy = sum(s->p_xy, fixed_mul_div(s->p_yy_fs2, n, 1000, full), full);
    s->p_xy = sum(s->p_xy, fixed_mul_div(walked, n, 2000, full), full);
    s->p_yy_fs2 = limited(sum(s->p_yy_fs2, walked, full), 1, MOST_PS2);
}

static void update(step* t, int64_t innovation_as) {
    servo_state* s = t->s;
    bool* full = &t->saturated;
    const int64_t total = sum(s->p_xx_ps2, t->noise_ps2, full);
    s->offset_as = fixed_add(s->offset_as, fixed_mul_div(innovation_as, s->p_xx_ps2, total, full), full);
    // p_xy / total is in fs/s per ps, a thousandth per second.
    s->frequency_as_s =
        fixed_add(s->frequency_as_s, fixed_mul_div(innovation_as, s->p_xy, total, full) / 1000, full);
    s->p_yy_fs2 = limited(s->p_yy_fs2 - fixed_mul_div(s->p_xy, s->p_xy, total, full), 1, MOST_PS2);
    s->p_xy = fixed_mul_div(s->p_xy, t->noise_ps2, total, full);
    s->p_xx_ps2 = limited(fixed_mul_div(s->p_xx_ps2, t->noise_ps2, total, full), 1, MOST_PS2);
}

// Variance of the offset `ahead_q32` after the last due pulse, receiver's wander not included.
static int64_t offset_ps2(step* t, int64_t ahead_q32) {
    const servo_state* s = t->s;
    bool* full = &t->saturated;
    int64_t variance = s->p_xx_ps2;
    const int64_t drift = fixed_mul_shift(fixed_mul_div(s->p_xy, 2, 1000, full), ahead_q32, 32, full);
    const int64_t flicker = sum(s->p_yy_fs2, s->flicker_fs2, full) / 1000000;
    const int64_t turned =
        fixed_mul_shift(fixed_mul_shift(flicker, ahead_q32, 32, full), ahead_q32, 32, full);
    variance = sum(variance, sum(drift, turned, full), full);
    variance = sum(variance, fixed_mul_shift(s->white_ps2, ahead_q32, 32, full), full);
    if (s->holdover_s > 0) {
        const int64_t seconds = (int64_t)s->holdover_s + (ahead_q32 >> 32) + 1;
        const int64_t predicted = prediction_ps2(s, seconds, full);
        if (predicted > variance) variance = predicted;
    }
    return limited(variance, 1, MOST_PS2);
}

// By how much the receiver says to be worse than it usually is, one standard deviation.
static uint32_t excess_ps(const servo_state* s, uint32_t told_ps) {
    return s->usual_ps != 0 && told_ps > s->usual_ps ? told_ps - s->usual_ps : 0;
}

// The bound: four sigma of estimate and wander, doubts, and what the temperature may do.
static int64_t bound_ps(step* t, int64_t ahead_q32) {
    const servo_state* s = t->s;
    bool* full = &t->saturated;
    int64_t wander = square(s->config.wander_ps, full);
    // A receiver that says that it is worse than its kind is believed: a quarter of what it usually says, for
    // receivers are careful; all of what it says beyond that.
    const uint32_t excess = excess_ps(s, s->accuracy_ps);
    const int64_t told = square((s->accuracy_ps - excess) / 4 + excess, full);
    if (told > wander) wander = told;
    int64_t variance = offset_ps2(t, ahead_q32);
    if (s->residual_q16 > 65536)
        variance = limited(fixed_mul_div(variance, s->residual_q16, 65536, full), 1, MOST_PS2);
    int64_t bound = COVER * root(sum(variance, wander, full)) + s->doubt_ps;
    if (s->holdover_s > 0) {
        const int64_t held = s->holdover_s;
        bound += (int64_t)s->config.temperature_ppt * (held < 3600 ? held : 3600) / 3600 * held / 2;
    }
    return bound;
}

// Means of the frequency over several times, the filter's own among them. Against flicker, which has no time
// of its own, their mean predicts better than any one of them.
static void average(step* t, uint64_t phase_as) {
    servo_state* s = t->s;
    if (!t->accepted || t->elapsed_s != 1) {
        s->mean_held = t->accepted;
    } else if (s->mean_held) {
        const int64_t frequency = (int64_t)(phase_as - s->mean_phase_as);
        // What the filter's frequency is worth, against how fast it gets lost: the time it averages over.
        const int64_t own_s = limited(s->p_yy_fs2 / s->walk_fs2, 1, 100000);
        const int64_t times_s[SERVO_MEANS] = {own_s / 3, 3 * own_s, 9 * own_s};
        if (s->mean_count < 100000) s->mean_count++;
        for (unsigned i = 0; i < SERVO_MEANS; i++) {
            const int64_t over = limited(times_s[i], 1, s->mean_count);
            const int64_t difference = fixed_sub(frequency, s->mean_as_s[i], &t->saturated);
            s->mean_as_s[i] = fixed_add(s->mean_as_s[i], difference / over, &t->saturated);
        }
    }
    s->mean_held = t->accepted;
    s->mean_phase_as = phase_as;
}

static int64_t predicted_as_s(const servo_state* s) {
    if (s->mean_count < 30) return s->frequency_as_s;
    int64_t total = s->frequency_as_s / (SERVO_MEANS + 1);
    for (unsigned i = 0; i < SERVO_MEANS; i++) total += s->mean_as_s[i] / (SERVO_MEANS + 1);
    return total;
}

// ---- qErr -------------------------------------------------------------------------------------------------

// Finds out by data whether and how qErr belongs to the pulses: the second difference of phase + use * qErr
// scatters least for the right use. Uses: 0 as received, 1 opposite, 2 and 3 the same with the qErr received
// a second before, 4 none.
static int64_t qerr_correction_ps(const servo_state* s, uint32_t use, int64_t now_ps, int64_t before_ps) {
    (void)s;
    const int64_t value = use < 2 ? now_ps : before_ps;
    return use == SERVO_QERR_USES - 1 ? 0 : use & 1u ? -value : value;
}

static void judge_qerr(step* t, uint64_t raw_phase_as, bool valid) {
    servo_state* s = t->s;
    const int64_t qerr = t->in->qerr_ps;
    if (!valid || t->elapsed_s != 1) {
        s->qerr_run = 0;
        if (!valid) return;
    }
    if (s->qerr_run >= 3) {
        const int64_t phase_ps =
            (int64_t)(raw_phase_as - 2 * s->qerr_phase_as[0] + s->qerr_phase_as[1]) / AS_PER_PS;
        const int64_t now_ps = qerr - 2 * s->qerr_ps[0] + s->qerr_ps[1];
        const int64_t before_ps = s->qerr_ps[0] - 2 * s->qerr_ps[1] + s->qerr_ps[2];
        const int64_t far_ps = 1000000 + 4 * (int64_t)s->config.sawtooth_ps;
        if (phase_ps < far_ps && phase_ps > -far_ps) {
            if (s->qerr_count < 1000) s->qerr_count++;
            for (uint32_t use = 0; use < SERVO_QERR_USES; use++) {
                const int64_t d = phase_ps + qerr_correction_ps(s, use, now_ps, before_ps);
                s->qerr_square[use] += (square(d, &t->saturated) - s->qerr_square[use]) / 16;
            }
            uint32_t best = s->qerr_use;
            for (uint32_t use = 0; use < SERVO_QERR_USES; use++)
                if (s->qerr_square[use] < s->qerr_square[best]) best = use;
            // Half the variance, after enough pulses, and again as many before the next change of mind.
            if (s->qerr_count >= 12 && s->qerr_square[best] < s->qerr_square[s->qerr_use] / 2) {
                s->qerr_use = best;
                s->qerr_count = 0;
            }
            // Proven when it helps, until it does harm.
            const int64_t with = s->qerr_square[s->qerr_use], without = s->qerr_square[SERVO_QERR_USES - 1];
            if (s->qerr_count >= 12 && with < without / 2) s->qerr_proven = 1;
            if (with / 2 > without) s->qerr_proven = 0;
        }
    }
    s->qerr_phase_as[1] = s->qerr_phase_as[0];
    s->qerr_phase_as[0] = raw_phase_as;
    s->qerr_ps[2] = s->qerr_ps[1];
    s->qerr_ps[1] = s->qerr_ps[0];
    s->qerr_ps[0] = qerr;
    if (s->qerr_run < 3) s->qerr_run++;
}

// ---- States -----------------------------------------------------------------------------------------------

// As at the first start, but for what is the oscillator's own: its frequency, its noise and its ageing, and
// how the clock is steered.
static void become_cold(servo_state* s) {
    s->state = SERVO_COLD;
    // What was believed of time: nothing may be taken for granted that the first start does not.
    s->locked_once = s->fresh = s->load_ordered = s->holdover_s = s->doubt_ps = s->snapshots = 0;
    s->cold_count = s->good = s->missed = s->candidates = s->inside = s->outside = s->returning = 0;
    s->agreed = s->disagreed = s->pulled = s->pulled_s = s->stuck = 0;
    s->disputed_as = s->pulled_as = 0;
    s->disagreement_s = 0;
    s->residual_q16 = 65536;
    // Of the receiver: it may be another one by now.
    s->unvouched_s = LONG_S;
    s->unvouched = s->accuracy_ps = s->usual_ps = 0;
    s->qerr_run = s->qerr_count = s->qerr_use = s->qerr_proven = 0;
    for (unsigned use = 0; use < SERVO_QERR_USES; use++) s->qerr_square[use] = 0;
    // Spans of the oscillator's phase that the time to come does not continue.
    s->ageing_held = s->mean_held = s->mean_count = 0;
    for (unsigned j = 0; j < SERVO_OCTAVES; j++) s->octave[j].held = 0;
}

void servo_config_default(servo_config* config) {
    *config = (servo_config){
        .white_ppt = 5000,
        .flicker_ppt = 2000,
        .walk_ppt = 5000,
        .temperature_ppt = 20000,
        .learn = 1,
        .wander_ps = 10000,
        .jitter_ps = 500,
        .sawtooth_ps = 21000,
        .capture_ps = 1000,
        .slew_limit_ppb = 5000,
        .frequency_limit_ppb = 100000,
        .lock_pulses = 16,
        .lock_bound_ns = 200,
        .holdover_bound_ns = 1000000,
    };
}

static bool between(uint32_t value, uint32_t lowest, uint32_t highest) {
    return value >= lowest && value <= highest;
}

uint32_t servo_config_check(const servo_config* config) {
    const uint32_t most = 1000000000;
    const bool good = between(config->white_ppt, 0, most) && between(config->flicker_ppt, 0, most) &&
                      between(config->walk_ppt, 0, most) && between(config->temperature_ppt, 0, most) &&
                      between(config->learn, 0, 1) && between(config->wander_ps, 0, most) &&
                      between(config->jitter_ps, 0, most) && between(config->sawtooth_ps, 0, most) &&
                      between(config->capture_ps, 0, most) && between(config->slew_limit_ppb, 1, 100000) &&
                      between(config->frequency_limit_ppb, 1, 200000) &&
                      between(config->lock_pulses, 4, 1000) && between(config->lock_bound_ns, 1, most) &&
                      between(config->holdover_bound_ns, 1, 2000000);
    return good ? SERVO_OK : SERVO_BAD_CONFIG;
}

uint32_t servo_init(servo_state* state, const servo_config* config) {
    *state = (servo_state){.state = SERVO_FAILED, .increment_q72 = SERVO_NOMINAL_Q72};
    state->bound_ns = SERVO_BOUND_UNKNOWN;
    if (servo_config_check(config) != SERVO_OK) return SERVO_BAD_CONFIG;
    state->config = *config;
    become_cold(state);
    start_learning(state);
    return SERVO_OK;
}

// How often pulses three in a row, a second apart, with messages that count on, must come before a load.
#define COLD_PULSES 3

// Cold: waits for pulses and messages that agree, takes the frequency from them, orders a load.
static void step_cold(step* t) {
    servo_state* s = t->s;
    const servo_input* in = t->in;
    const bool pulse = (in->flags & SERVO_IN_PULSE) && !(t->events & SERVO_EVENT_MOVED);
    // With nothing to go by, a second with several edges says nothing.
    const bool whole = pulse && (in->flags & SERVO_IN_TAI) && !(in->flags & SERVO_IN_DOUBLE) &&
                       s->unvouched_s <= VOUCHED_S && in->tai_s < (UINT64_C(1) << 32) - 3600 &&
                       in->tai_s > 3600;
    const uint64_t age_q32 = in->now_q32 - in->pulse_q32;
    if (!whole || age_q32 > ONE_Q32) {
        if (whole) t->events |= SERVO_EVENT_INPUT;
        if (!pulse) t->events |= SERVO_EVENT_MISSING;
        if (pulse && s->unvouched_s > VOUCHED_S) t->events |= SERVO_EVENT_UNVOUCHED;
        if (pulse && (in->flags & SERVO_IN_DOUBLE)) t->events |= SERVO_EVENT_DOUBLE;
        if (s->missed < 2) {
            s->missed++;
        } else {
            s->cold_count = 0;
        }
        return;
    }
    s->missed = 0;
    // What the oscillator was, as counted by itself, against the messages' seconds.
    const int64_t limit = (int64_t)s->config.frequency_limit_ppb * 1000000000;
    if (s->cold_count > 0) {
        const uint64_t seconds = in->tai_s - s->cold_tai_s;
        const int64_t counted = (int64_t)(in->pulse_q32 - s->cold_pulse_q32);
        bool agree = seconds >= 1 && seconds <= 3 && counted > 0 && counted < (int64_t)(4 * ONE_Q32);
        if (agree) {
            const int64_t excess = q32_to_as(counted - (int64_t)(seconds << 32), &t->saturated);
            const int64_t noise = 100000 * AS_PER_PS;
            agree = fixed_magnitude(excess - s->steer_as_s * (int64_t)seconds) <=
                    (uint64_t)(limit * (int64_t)seconds + noise);
        }
        if (!agree) {
            t->events |= SERVO_EVENT_MESSAGE;
            s->cold_count = 0;
        }
    }
    if (s->cold_count == 0) {
        s->cold_first_q32 = in->pulse_q32;
        s->cold_first_s = in->tai_s;
    }
    s->cold_pulse_q32 = in->pulse_q32;
    s->cold_tai_s = in->tai_s;
    s->cold_count++;
    if (s->cold_count < COLD_PULSES) return;

    const int64_t seconds = (int64_t)(in->tai_s - s->cold_first_s);
    const int64_t excess =
        q32_to_as((int64_t)(in->pulse_q32 - s->cold_first_q32) - (seconds << 32), &t->saturated) / seconds;
    // excess is the clock's rate: (1 + f)(1 + steer) - 1.
    s->frequency_as_s =
        limited(fixed_mul_div(excess - s->steer_as_s, AS_PER_S, AS_PER_S + s->steer_as_s, &t->saturated),
                -limit, limit);
    const int64_t pulses_ps2 = pulse_noise_ps2(&s->config, false);
    s->p_yy_fs2 = limited(sum(sum(2 * pulses_ps2, 4 * s->white_ps2, &t->saturated) / 2 * 1000000,
                              2 * s->walk_fs2, &t->saturated),
                          1, MOST_PS2);
    s->p_xy = 0;
    s->p_xx_ps2 = square(100 * 1000 * 1000, &t->saturated);  // a load may be 100 us off
    s->epoch_s = in->tai_s;
    // The pulse's age was counted at the clock's old rate.
    const int64_t gained_q32 = fixed_mul_div(excess, (int64_t)age_q32, AS_PER_S, &t->saturated);
    t->out->load_delta_q32 = (int64_t)((in->tai_s << 32) - in->pulse_q32 - (uint64_t)gained_q32);
    t->out->flags |= SERVO_OUT_LOAD;
    t->events |= SERVO_EVENT_LOADED;
    s->offset_as = 0;
    s->load_ordered = s->fresh = 1;
    s->good = s->missed = s->agreed = s->disagreed = 0;
    s->state = SERVO_ACQUIRING;
}

// Back to a pulse that was refused, or came after an outage.
static void reacquire(step* t, int64_t innovation_as) {
    servo_state* s = t->s;
    const int64_t seen_ps2 = square(innovation_as / AS_PER_PS, &t->saturated);
    int64_t variance = offset_ps2(t, 0);
    if (seen_ps2 > variance) variance = seen_ps2;
    s->p_xx_ps2 = variance;
    // The offset came from the frequency over the time since.
    const int64_t held = s->holdover_s > 0 ? s->holdover_s : 1;
    const int64_t frequency =
        fixed_mul_div(fixed_mul_div(variance, 1000, held, &t->saturated), 1000, held, &t->saturated);
    s->p_yy_fs2 = limited(sum(s->p_yy_fs2, frequency, &t->saturated), 1, MOST_PS2);
    s->p_xy = root(s->p_xx_ps2) / 2;
    s->p_xy = limited(fixed_mul(s->p_xy, root(s->p_yy_fs2), &t->saturated), -MOST_PS2, MOST_PS2);
    update(t, innovation_as);
    t->accepted = true;
    s->state = SERVO_ACQUIRING;
    s->good = 1;
    s->missed = s->candidates = s->inside = s->outside = s->returning = 0;
    s->holdover_s = s->snapshots = s->pulled = s->pulled_s = 0;
    s->fresh = s->mean_count = s->mean_held = 0;
}

// A pulse that was refused: does it agree with the ones before, and what does it contradict?
static void weigh(step* t, int64_t innovation_as, bool inside, int64_t bound) {
    servo_state* s = t->s;
    const uint64_t phase_as = (uint64_t)t->measured_as - s->control_as;
    const int64_t since = (int64_t)(phase_as - s->candidate_as);
    const int64_t expected = fixed_mul(s->frequency_as_s, (int64_t)t->elapsed_s, &t->saturated);
    const int64_t apart_ps = magnitude_ps(fixed_sub(since, expected, &t->saturated));
    const int64_t second_ps2 = sum(2 * t->noise_ps2, octave_ps2(s, 0, &t->saturated), &t->saturated);
    // The oscillator may run at another frequency by now: as in still_pulled().
    const int64_t turned = s->holdover_s > 0 ? 3 * bound / (2 * s->holdover_s) : 0;
    const bool agree =
        s->candidates > 0 && t->elapsed_s == 1 && apart_ps <= 100000 + GATE * root(second_ps2) + turned;
    if (!agree) s->candidates = s->inside = s->outside = 0;
    s->candidates++;
    if (inside) {
        s->inside++;
        s->outside = 0;
    } else {
        s->outside++;
        s->inside = 0;
    }
    s->candidate_as = phase_as;
    // The bound grows until it takes in what it was disputed with; so the pulses must come back at once, by
    // more than half the way.
    if (s->state == SERVO_DISPUTED && s->disputed_as != 0) {
        const bool back = fixed_magnitude(innovation_as) <= fixed_magnitude(s->disputed_as) / 2;
        if (agree && s->returning == 0) {
            s->disputed_as = innovation_as;
        } else if (!agree || !back) {
            s->returning = back;
            if (!back) s->disputed_as = innovation_as;
        } else {
            s->returning++;
        }
    } else {
        s->returning = s->inside;
    }
}

// After a pull: whether the pulses still run away, by half a minute of them.
static bool still_pulled(step* t, int64_t innovation_as) {
    servo_state* s = t->s;
    if (!s->pulled || s->state == SERVO_DISPUTED) return false;
    if (s->pulled_s++ == 0) s->pulled_as = innovation_as;
    if (s->pulled_s <= 32) return true;
    s->pulled_s = 0;
    const int64_t run_ps = magnitude_ps(fixed_sub(innovation_as, s->pulled_as, &t->saturated));
    // A prediction over t s that is off by x runs off at 3/2 x / t, a random walk of frequency taken for
    // granted.
    const int64_t held = s->holdover_s > 32 ? s->holdover_s : 32;
    return run_ps > COVER * 48 * root(prediction_ps2(s, held, &t->saturated)) / held;
}

static void step_measured(step* t) {
    servo_state* s = t->s;
    const int64_t innovation_as = fixed_sub(t->measured_as, s->offset_as, &t->saturated);
    const int64_t innovation_ps = innovation_as / AS_PER_PS;
    const uint64_t far_ps = fixed_magnitude(innovation_ps);
    t->out->innovation_ps = innovation_ps;
    const int64_t wander = square(s->config.wander_ps, &t->saturated);
    const int64_t total = sum(sum(s->p_xx_ps2, t->noise_ps2, &t->saturated), wander / 4, &t->saturated);
    const int64_t sigma_ps = root(total);

    if (s->state == SERVO_LOCKED || s->state == SERVO_ACQUIRING) {
        // Wider while the oscillator is hardly known: what is refused teaches nothing.
        const int64_t gate = s->octave[0].count < 128 ? 2 * GATE : GATE;
        if (far_ps <= (uint64_t)(gate * sigma_ps)) {
            update(t, innovation_as);
            t->accepted = true;
            s->good++;
            s->missed = s->candidates = 0;
            s->holdover_s = 0;
            const int64_t ratio =
                limited(fixed_mul_div(square(innovation_ps, &t->saturated), 65536, total, &t->saturated), 0,
                        64 * 65536);
            s->residual_q16 = (uint32_t)((int64_t)s->residual_q16 + (ratio - (int64_t)s->residual_q16) / 16);
            if (far_ps > (uint64_t)(4 * sigma_ps) && s->state == SERVO_LOCKED && s->doubt_ps < far_ps)
                s->doubt_ps = (uint32_t)far_ps;
            return;
        }
        t->events |= SERVO_EVENT_OUTLIER;
        const int64_t bound = bound_ps(t, 0);
        weigh(t, innovation_as, far_ps <= (uint64_t)bound, bound);
    } else {
        const int64_t bound = bound_ps(t, 0);
        const bool inside = far_ps <= (uint64_t)(bound + GATE * root(t->noise_ps2));
        weigh(t, innovation_as, inside, bound);
        if (!inside) t->events |= SERVO_EVENT_OUTLIER;
        const uint32_t needed = s->state == SERVO_DISPUTED ? CONTRADICTIONS : 3;
        // Not to a receiver that says to be worse than the clock is by itself.
        const bool better = COVER * (int64_t)excess_ps(s, t->told_ps) <= bound;
        if (better && s->inside >= needed && s->returning >= needed && s->disagreed == 0 &&
            !still_pulled(t, innovation_as)) {
            reacquire(t, innovation_as);
            return;
        }
    }
    if (s->outside >= CONTRADICTIONS) t->events |= SERVO_EVENT_STEP;
}

// What the pulse's message says about its second.
static void step_message(step* t) {
    servo_state* s = t->s;
    if (!(t->in->flags & SERVO_IN_TAI) || !t->measured) return;
    if (t->in->tai_s == t->epoch_s) {
        s->disagreed = 0;
        if (s->agreed < 1000) s->agreed++;
    } else {
        t->events |= SERVO_EVENT_MESSAGE;
        const uint64_t by_s = t->in->tai_s - t->epoch_s;
        // Only one and the same contradiction counts: noise on the line says something else each time.
        s->disagreed = by_s == s->disagreement_s ? s->disagreed + (s->disagreed < 1000) : 1;
        s->disagreement_s = by_s;
        s->agreed = 0;
    }
}

static void step_accept(step* t) {
    servo_state* s = t->s;
    if (s->state != SERVO_DISPUTED && s->state != SERVO_FAILED) return;
    const uint32_t was = s->state;
    const bool near = was == SERVO_DISPUTED && t->measured && s->disagreed == 0 && s->outside >= 1 &&
                      fixed_magnitude(t->out->innovation_ps) < 20000000;
    if (near) {
        reacquire(t, fixed_sub(t->measured_as, s->offset_as, &t->saturated));
        s->doubt_ps = 0;
    } else {
        become_cold(s);
        s->refused = s->stuck = 0;
    }
}

// Whether the pulses have gone further from where they were predicted 4 to 64 s ago than the oscillator goes:
// six sigma of a prediction by the filter's frequency, which is worth more than half of what the mean over
// the same time gives.
static bool pulled(step* t, uint64_t phase_as) {
    const servo_state* s = t->s;
    bool* full = &t->saturated;
    if (s->octave[4].count < 64) return false;
    for (unsigned i = 0; i < s->snapshots; i = 2 * i + 1) {
        const servo_snapshot* old = &s->snapshot[i];
        const int64_t since = (int64_t)(t->epoch_s - old->epoch_s);
        const int64_t moved = fixed_mul(old->frequency_as_s, since, full);
        const int64_t off_ps = magnitude_ps((int64_t)(phase_as - old->phase_as - (uint64_t)moved));
        const int64_t turned = fixed_mul_div(old->p_yy_fs2, since * since, 1000000, full);
        const int64_t walked = fixed_mul_div(s->walk_fs2, since * since * since, 3000000, full);
        const int64_t model = sum(sum(turned, walked, full), fixed_mul(s->white_ps2, since, full), full);
        const int64_t seen = prediction_ps2(s, since, full) / 5 * 3;
        const int64_t variance = sum(model > seen ? model : seen, 2 * t->noise_ps2, full);
        if (off_ps > GATE * root(variance)) return true;
    }
    return false;
}

// To what was known when a snapshot was taken, and on from there by the oscillator alone.
static void go_back(step* t, const servo_snapshot* old) {
    servo_state* s = t->s;
    const uint64_t since = t->epoch_s - old->epoch_s;
    const int64_t moved = fixed_mul(old->frequency_as_s, (int64_t)since, &t->saturated);
    s->offset_as = (int64_t)(old->phase_as + (uint64_t)moved + s->control_as);
    s->frequency_as_s = old->frequency_as_s;
    s->holdover_s = (uint32_t)since;
    s->state = SERVO_HOLDOVER;
    s->missed = s->candidates = s->inside = s->outside = s->returning = s->snapshots = s->pulled_s = 0;
    s->pulled = 1;
    if (s->accuracy_ps > s->usual_ps) s->accuracy_ps = s->usual_ps;  // as it was then
}

// Into holdover. A receiver that goes on pulsing with nobody who vouches, or doubts itself, has lost its
// satellites some time before it said so: back to before that.
static void hold(step* t, uint32_t before) {
    servo_state* s = t->s;
    if ((s->unvouched || t->doubted) && s->snapshots > 0) {
        unsigned i = 0;
        while (i + 1 < s->snapshots && t->epoch_s - s->snapshot[i].epoch_s < FALSE_FIX_S) i++;
        go_back(t, &s->snapshot[i]);
        return;
    }
    s->frequency_as_s = predicted_as_s(s);
    // Pulses that were refused, not missed, may be on their way somewhere else.
    if (t->measured && before == SERVO_LOCKED) s->pulled = 1;
}

static void keep_snapshot(step* t) {
    servo_state* s = t->s;
    if (s->state != SERVO_LOCKED || t->epoch_s % 4 != 0) return;
    for (unsigned i = SERVO_SNAPSHOTS - 1; i > 0; i--) s->snapshot[i] = s->snapshot[i - 1];
    s->snapshot[0] = (servo_snapshot){.epoch_s = t->epoch_s,
                                      .phase_as = (uint64_t)s->offset_as - s->control_as,
                                      .frequency_as_s = s->frequency_as_s,
                                      .p_yy_fs2 = s->p_yy_fs2};
    if (s->snapshots < SERVO_SNAPSHOTS) s->snapshots++;
}

// Locked, holdover, disputed, cold: by what this second brought.
static void step_state(step* t) {
    servo_state* s = t->s;
    const int64_t bound = bound_ps(t, (int64_t)(2 * ONE_Q32));
    const int64_t lock_ps = (int64_t)s->config.lock_bound_ns * 1000;
    const uint32_t before = s->state;
    if (s->state == SERVO_LOCKED && bound > 2 * lock_ps) s->state = SERVO_HOLDOVER;
    if (s->state == SERVO_ACQUIRING && !s->fresh && s->good >= s->config.lock_pulses && bound <= lock_ps &&
        s->disagreed == 0 && (s->locked_once || s->agreed >= 3) && t->accepted &&
        fixed_magnitude(s->offset_as / AS_PER_PS) < (uint64_t)lock_ps) {
        s->state = SERVO_LOCKED;
        s->locked_once = 1;
    }
    if ((s->state == SERVO_LOCKED || s->state == SERVO_ACQUIRING) && s->missed >= 3) {
        s->state = s->state == SERVO_ACQUIRING && !s->locked_once ? SERVO_COLD : SERVO_HOLDOVER;
        if (s->state == SERVO_COLD) become_cold(s);
    }
    if (s->state == SERVO_HOLDOVER && before != SERVO_HOLDOVER) hold(t, before);
    if (s->state != SERVO_COLD && s->state != SERVO_FAILED) {
        const bool contradicted = s->outside >= CONTRADICTIONS || s->disagreed >= CONTRADICTIONS;
        if (contradicted && !s->locked_once) {
            become_cold(s);
        } else if (contradicted && s->state != SERVO_DISPUTED) {
            s->state = SERVO_DISPUTED;
            s->disputed_as = s->outside >= CONTRADICTIONS ? t->out->innovation_ps * AS_PER_PS : 0;
            s->returning = 0;
        }
    }
    if (s->state == SERVO_HOLDOVER && bound > (int64_t)s->config.holdover_bound_ns * 1000) become_cold(s);
    const uint64_t limit = (uint64_t)s->config.frequency_limit_ppb * 1000000000;
    if (s->state != SERVO_COLD && fixed_magnitude(s->frequency_as_s) > limit) s->state = SERVO_FAILED;
    if (s->stuck >= 3 || s->refused >= 3) s->state = SERVO_FAILED;
}

// ---- Output -----------------------------------------------------------------------------------------------

static void steer(step* t) {
    servo_state* s = t->s;
    const int64_t nominal = (int64_t)SERVO_NOMINAL_Q72;
    const int64_t wanted =
        -fixed_mul_div(s->frequency_as_s, AS_PER_S, AS_PER_S + s->frequency_as_s, &t->saturated);
    const int64_t increment = nominal + fixed_mul_div(wanted, nominal, AS_PER_S, &t->saturated);
    s->increment_q72 = (uint64_t)limited(increment, (int64_t)SERVO_LOWEST_Q72, (int64_t)SERVO_HIGHEST_Q72);
    s->steer_as_s = fixed_mul_div((int64_t)s->increment_q72 - nominal, AS_PER_S, nominal, &t->saturated);
}

// Moves the clock by the offset as fast as the limit allows, done 0.35 s from now, so before the next pulse.
static void slew(step* t) {
    servo_state* s = t->s;
    const int64_t most_as = (int64_t)s->config.slew_limit_ppb * 350000000;
    const int64_t amount = limited(-s->offset_as, -most_as, most_as);
    // 2^-64 s is 0.0542 as: 18.4467 of them to one.
    t->out->slew_amount_q64 = fixed_mul_shift(amount, INT64_C(79228162514), 32, &t->saturated);
    t->out->flags |= SERVO_OUT_SLEW;
    move(s, amount, &t->saturated);
}

static void report(step* t) {
    servo_state* s = t->s;
    servo_output* o = t->out;
    if (t->saturated) t->events |= SERVO_EVENT_SATURATED;
    if (s->ageing_as_s2 != 0) t->events |= SERVO_EVENT_AGEING;
    if (s->qerr_use == 1 || s->qerr_use == 3) t->events |= SERVO_EVENT_QERR_SIGN;
    if (s->qerr_use == 2 || s->qerr_use == 3) t->events |= SERVO_EVENT_QERR_LATE;
    if (s->qerr_use == 4) t->events |= SERVO_EVENT_QERR_NONE;
    o->increment_q72 = s->increment_q72;
    // slew_limit_ppb of 8 ns, in 2^-64 s a cycle, rounded down.
    o->slew_step_q64 = (SERVO_NOMINAL_Q72 >> 8) * s->config.slew_limit_ppb / 1000000000u;
    o->bound_ns = s->bound_ns;
    o->state = s->state;
    if (s->state == SERVO_LOCKED) o->flags |= SERVO_OUT_LOCKED;
    o->events = t->events;
    o->frequency_ppt = s->frequency_as_s / AS_PER_PS;
    o->ageing_ppt_day = fixed_mul_div(s->ageing_as_s2, 86400, AS_PER_PS, &t->saturated);
    o->sigma_ps = (uint32_t)root(s->p_xx_ps2);
    o->frequency_sigma_ppt = (uint32_t)(root(s->p_yy_fs2) / 1000);
    o->white_ppt = (uint32_t)root(s->white_ps2);
    o->flicker_ppt = (uint32_t)(root(s->flicker_fs2) / 1000);
    o->walk_ppt = (uint32_t)(root(s->walk_fs2) / 1000);
    o->qerr_use = s->qerr_use == 4 ? 0 : s->qerr_use & 1u ? -1 : 1;
    o->holdover_s = s->holdover_s;
}

// From the last call to the last due pulse.
static void go_to_epoch(step* t) {
    servo_state* s = t->s;
    const int64_t to_epoch = (int64_t)((t->epoch_s << 32) - s->last_now_q32);
    advance(t, to_epoch);
    s->epoch_s = t->epoch_s;
    if (t->elapsed_s > 0) spread(t, (int64_t)t->elapsed_s);
    if (s->state == SERVO_HOLDOVER || s->state == SERVO_DISPUTED)
        s->frequency_as_s =
            fixed_add(s->frequency_as_s, fixed_mul(s->ageing_as_s2, (int64_t)t->elapsed_s, &t->saturated),
                      &t->saturated);
}

// Of several edges, whether it is clear that pulse_q32 is the one: not where the other could be it as well.
static bool decided(step* t) {
    const servo_state* s = t->s;
    if (s->fresh) return false;
    if (s->state == SERVO_LOCKED || s->state == SERVO_ACQUIRING) return true;  // the gate is narrow
    const int64_t other_as =
        fixed_add(t->measured_as, q32_to_as(t->in->other_q32, &t->saturated), &t->saturated);
    return magnitude_ps(fixed_sub(other_as, s->offset_as, &t->saturated)) > bound_ps(t, 0);
}

// The pulse, if it can be one: between the last call and this one, and half a second about its own.
static void look(step* t) {
    servo_state* s = t->s;
    const servo_input* in = t->in;
    if (!(in->flags & SERVO_IN_PULSE)) {
        t->events |= SERVO_EVENT_MISSING;
        return;
    }
    if (s->unvouched_s > VOUCHED_S) {
        t->events |= SERVO_EVENT_UNVOUCHED;
        s->unvouched = 1;
        return;
    }
    const int64_t from_epoch = (int64_t)(in->pulse_q32 - (t->epoch_s << 32));
    const int64_t half = (int64_t)(ONE_Q32 / 2);
    if (t->elapsed_s == 0 || from_epoch < -half || from_epoch > half ||
        in->now_q32 - in->pulse_q32 > 2 * ONE_Q32) {
        t->events |= SERVO_EVENT_INPUT;
        return;
    }
    t->measured_as = q32_to_as(from_epoch, &t->saturated);
    if (in->flags & SERVO_IN_DOUBLE) {
        t->events |= SERVO_EVENT_DOUBLE;
        if (!decided(t)) return;
    }
    t->measured = true;
    const bool qerr = (in->flags & SERVO_IN_QERR) && in->qerr_ps <= 1000000 && in->qerr_ps >= -1000000;
    const bool before = s->qerr_run > 0 && t->elapsed_s == 1;
    const int64_t before_ps = s->qerr_ps[0];
    judge_qerr(t, (uint64_t)t->measured_as - s->control_as, qerr);
    const bool corrected = s->qerr_use < 2 ? qerr : s->qerr_use < 4 ? before : false;
    if (corrected) t->measured_as += qerr_correction_ps(s, s->qerr_use, in->qerr_ps, before_ps) * AS_PER_PS;
    t->noise_ps2 = pulse_noise_ps2(&s->config, corrected && s->qerr_proven);
    // A correction of the wrong sign doubles what it should take away.
    if (corrected && !s->qerr_proven)
        t->noise_ps2 = sum(t->noise_ps2, square(s->config.sawtooth_ps, &t->saturated), &t->saturated);
    if (in->flags & SERVO_IN_ACCURACY)
        t->told_ps = (in->accuracy_ns < 1000000 ? in->accuracy_ns : 1000000) * 1000;
    t->doubted = excess_ps(s, t->told_ps) > s->usual_ps;
}

// A pulse went into the filter: the clock is now as good as its receiver says. What is usual falls at once
// and rises in a quarter of an hour.
static void keep_accuracy(const step* t) {
    servo_state* s = t->s;
    if (!(t->in->flags & SERVO_IN_ACCURACY)) return;
    if (s->usual_ps == 0 || t->told_ps < s->usual_ps) s->usual_ps = t->told_ps;
    s->usual_ps += (t->told_ps - s->usual_ps) / 1024;
    s->accuracy_ps = t->told_ps;
}

// For how long nobody has vouched for the pulses.
static void count_unvouched(servo_state* s, uint32_t flags, uint64_t elapsed_q32) {
    const uint32_t seconds = (uint32_t)((elapsed_q32 + ONE_Q32 / 2) >> 32);
    if (flags & SERVO_IN_FIX) {
        s->unvouched_s = 0;
    } else if (flags & SERVO_IN_FIX_BEFORE) {
        s->unvouched_s = 1;
    } else if (flags & SERVO_IN_TAI) {
        s->unvouched_s = 0;
    } else if (s->unvouched_s <= VOUCHED_S) {
        s->unvouched_s += seconds < LONG_S ? seconds : LONG_S;
    }
    if (s->unvouched_s <= VOUCHED_S) s->unvouched = 0;
}

void servo_step(servo_state* state, const servo_input* input, servo_output* output) {
    servo_state* s = state;
    *output = (servo_output){0};
    step t = {.s = s, .in = input, .out = output};
    const uint64_t elapsed_q32 = input->now_q32 - s->last_now_q32;
    const bool first = !s->started;
    const bool moved = !first && input->moves != s->moves;
    s->moves = input->moves;
    if (moved) {
        t.events |= SERVO_EVENT_MOVED;
        if (s->state != SERVO_FAILED) become_cold(s);
    } else if (!first && elapsed_q32 < ONE_Q32 / 2) {
        t.events |= SERVO_EVENT_EARLY;
        report(&t);
        return;
    } else if (!first && elapsed_q32 > 3600 * ONE_Q32) {  // the caller slept
        t.events |= SERVO_EVENT_INPUT;
        if (s->state != SERVO_FAILED) become_cold(s);
    } else if (!first && elapsed_q32 > ONE_Q32 + ONE_Q32 / 2) {
        t.events |= SERVO_EVENT_LATE;
    }
    s->started = 1;
    count_unvouched(s, input->flags, elapsed_q32);
    if (input->flags & SERVO_IN_REFUSED) {
        s->refused++;
        if (s->load_ordered) become_cold(s);  // the load was refused: a train is armed
    } else {
        s->refused = 0;
    }
    s->load_ordered = 0;

    if (s->state == SERVO_COLD || s->state == SERVO_FAILED) {
        if (s->state == SERVO_FAILED && (input->flags & SERVO_IN_ACCEPT)) step_accept(&t);
        if (s->state == SERVO_COLD) step_cold(&t);
        s->bound_ns = SERVO_BOUND_UNKNOWN;
        s->last_now_q32 = input->now_q32;
        if (output->flags & SERVO_OUT_LOAD) s->last_now_q32 += (uint64_t)output->load_delta_q32;
        steer(&t);
        report(&t);
        return;
    }

    // 50 ms for a pulse that is early or a caller that is.
    t.epoch_s = (input->now_q32 - ONE_Q32 / 20) >> 32;
    t.elapsed_s = t.epoch_s > s->epoch_s ? t.epoch_s - s->epoch_s : 0;
    if (t.elapsed_s == 0) t.epoch_s = s->epoch_s;
    if (input->slew_left_q64 != 0) {
        // Not done in time: what is left will never be. The pulse came on the way: not used.
        const int64_t left_as = fixed_mul_div(input->slew_left_q64, AS_PER_S, INT64_MAX, &t.saturated) / 2;
        move(s, -left_as, &t.saturated);
        s->stuck++;
        t.events |= SERVO_EVENT_INPUT;
    } else {
        s->stuck = 0;
    }
    go_to_epoch(&t);
    if (s->stuck == 0) look(&t);
    if (t.measured) {
        step_message(&t);
        if (s->fresh) {  // the first pulse after a load says where it went
            const uint64_t off_as = fixed_magnitude(t.measured_as);
            if (off_as > (uint64_t)(200000000 * AS_PER_PS)) {
                become_cold(s);
            } else {
                s->p_xx_ps2 = t.noise_ps2;
                s->p_xy = 0;  // what was known before the load is of another time
                s->offset_as = t.measured_as;
                s->fresh = 0;
                s->good = 1;
                t.accepted = true;
            }
        } else {
            step_measured(&t);
        }
    }
    if (t.accepted) keep_accuracy(&t);
    if (!t.accepted && t.elapsed_s > 0 && s->state != SERVO_COLD) {
        s->missed++;
        s->good = 0;
        s->holdover_s = s->holdover_s < 1000000000 ? s->holdover_s + (uint32_t)t.elapsed_s : s->holdover_s;
        if (!t.measured) s->candidates = s->inside = s->outside = s->returning = 0;
    }
    if (t.elapsed_s > 0 && s->state != SERVO_COLD) {
        const uint64_t phase_as = (uint64_t)(t.accepted ? t.measured_as : s->offset_as) - s->control_as;
        const bool good = t.accepted || (s->state == SERVO_LOCKED && s->missed < 3);
        observe_ageing(&t, phase_as, good);
        average(&t, phase_as);
        observe(&t, phase_as, good);
        if (s->state == SERVO_LOCKED && pulled(&t, phase_as)) {
            t.events |= SERVO_EVENT_PULL;
            go_back(&t, &s->snapshot[s->snapshots - 1]);
        }
        keep_snapshot(&t);
    }
    if (input->flags & SERVO_IN_ACCEPT) step_accept(&t);
    step_state(&t);

    if (s->state == SERVO_COLD || s->state == SERVO_FAILED) {
        s->bound_ns = SERVO_BOUND_UNKNOWN;
    } else {
        const int64_t since = (int64_t)(input->now_q32 - (t.epoch_s << 32));
        advance(&t, since);
        output->offset_ps = s->offset_as / AS_PER_PS;
        steer(&t);
        // Two moments count: now, before the slew, and just before the next step, with what the slew left.
        const int64_t now_ps = bound_ps(&t, since) + magnitude_ps(s->offset_as);
        if (since < (int64_t)(ONE_Q32 / 10 * 6) && !s->fresh) slew(&t);
        const int64_t next_ps = bound_ps(&t, since + (int64_t)ONE_Q32) + magnitude_ps(s->offset_as);
        const int64_t bound = now_ps > next_ps ? now_ps : next_ps;
        // An offset that takes longer than a second to slew away is no lock either.
        if (s->state == SERVO_LOCKED && bound > 2000 * (int64_t)s->config.lock_bound_ns)
            s->state = SERVO_HOLDOVER;
        s->bound_ns = bound > (int64_t)s->config.holdover_bound_ns * 1000 ? SERVO_BOUND_UNKNOWN
                                                                          : (uint32_t)((bound + 999) / 1000);
        // Before the first lock nothing has confirmed which second it is.
        if (!s->locked_once) s->bound_ns = SERVO_BOUND_UNKNOWN;
        // 2^-32 s are 232830644 as.
        output->expected_q32 = (int32_t)limited(s->offset_as / 232830644, -INT32_MAX, INT32_MAX);
    }
    s->last_now_q32 = input->now_q32;
    s->doubt_ps -= (s->doubt_ps + 7) / 8;
    report(&t);
}
