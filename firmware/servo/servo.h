// SPDX-License-Identifier: Apache-2.0
// The clock servo: pulses of a GPS receiver in, rate, slew, state and error bound of card time out.
//
// Pure arithmetic: no register, no global, no heap, no floating point, no recursion; C11, at most 64 bits.
// The same source runs on the soft core (rv32im) and on the host (twinstamp_gps._servo), bit for bit.
//
// How to call it
//   servo_init() once, then servo_step() once a second, also when no pulse came: 100 to 600 ms after the
//   expected pulse, when the receiver's message for it has arrived or timed out. Before there was any pulse:
//   once a second all the same. Steps may be late or left out; the servo sees it from now_q32 and lets the
//   bound grow.
//   Then, within 2 ms of reading now_q32, the caller puts the output into the registers in this order:
//     1. clock.control.locked = (out.flags & SERVO_OUT_LOCKED), when it is to be 0
//     2. SERVO_OUT_LOAD: read card time, add load_delta_q32 (modulo 2^64) and the latency of the load, load.
//        Up to 20 us off is no harm: the servo measures and slews what is left.
//     3. clock.increment = increment_q72, always
//     4. SERVO_OUT_SLEW: clock.slew_step = slew_step_q64, clock.slew_amount = slew_amount_q64
//     5. clock.bound = bound_ns, then clock.control.locked when it is to be 1
//
// Monotony and rate: outside of a load, card time moves by increment + slew step per cycle; the increment
// follows the estimated frequency of the oscillator, and |slew step| never exceeds slew_limit_ppb of 8 ns, so
// the rate is off by at most that limit from the estimate. A load comes only in a step whose state is cold or
// acquiring, never with LOCKED.
//
// Signs: offsets are card time minus TAI. pulse_q32 must be unbiased (the middle of the capture's quantum).
// The second begins at pulse + qErr (what u-blox receivers were measured to mean); the servo finds out by
// data whether that holds, or the opposite, or qErr belongs to the pulse after.
#ifndef TWINSTAMP_SERVO_H
#define TWINSTAMP_SERVO_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SERVO_VERSION 2u
#define SERVO_NOMINAL_Q72 UINT64_C(0x225C17D04DAD)  // 8 ns, in 2^-72 s
#define SERVO_LOWEST_Q72 UINT64_C(0x210000000000)   // what card_clock takes: 7.68 ns
#define SERVO_HIGHEST_Q72 UINT64_C(0x23FFFFFFFFFF)  // 8.37 ns
#define SERVO_BOUND_UNKNOWN UINT32_C(0xFFFFFFFF)

// States, in the register's and the log's numbering.
enum {
    SERVO_COLD = 0,       // time unknown: bound_ns is SERVO_BOUND_UNKNOWN
    SERVO_ACQUIRING = 1,  // time known, converging: after a load, and after holdover (reacquiring)
    SERVO_LOCKED = 2,     // follows the receiver
    SERVO_HOLDOVER = 3,   // no pulse that may be believed; runs on the oscillator's model
    SERVO_DISPUTED = 4,   // runs on as in holdover; the receiver contradicts it and goes on doing so
    SERVO_FAILED = 5      // the clock did not do what it was told: until servo_init() or SERVO_IN_ACCEPT
};

// servo_input.flags
enum {
    SERVO_IN_PULSE = 1u << 0,       // pulse_q32 is the card time of a pulse that came since the last step
    SERVO_IN_EARLY = 1u << 1,       // for the log: the capture's own windows say that it is not on time
    SERVO_IN_DOUBLE = 1u << 2,      // more edges came: other_q32 is where the next nearest one stands
    SERVO_IN_GLITCH = 1u << 3,      // for the log: the capture's filter took out something too short
    SERVO_IN_TAI = 1u << 4,         // tai_s is valid; vouches for the pulse where nothing is said of a fix
    SERVO_IN_QERR = 1u << 5,        // qerr_ps is valid and belongs to this pulse
    SERVO_IN_ACCURACY = 1u << 6,    // accuracy_ns is valid
    SERVO_IN_REFUSED = 1u << 7,     // the clock has refused an increment or a load since the last step
    SERVO_IN_ACCEPT = 1u << 8,      // the operator accepts what the receiver says (one step)
    SERVO_IN_FIX = 1u << 9,         // a message with a fix came for this second: it vouches for the pulse
    SERVO_IN_FIX_BEFORE = 1u << 10  // one for the second before; it may have come after that second's step
};

// servo_output.flags
enum { SERVO_OUT_LOCKED = 1u << 0, SERVO_OUT_LOAD = 1u << 1, SERVO_OUT_SLEW = 1u << 2 };

// servo_output.events: what happened in this step.
enum {
    SERVO_EVENT_MISSING = 1u << 0,     // no pulse
    SERVO_EVENT_OUTLIER = 1u << 1,     // a pulse was refused: too far from what was predicted
    SERVO_EVENT_STEP = 1u << 2,        // pulses that agree with one another, but not with the clock
    SERVO_EVENT_PULL = 1u << 3,        // frequency moved more than the oscillator does
    SERVO_EVENT_MESSAGE = 1u << 4,     // the message's second contradicts card time
    SERVO_EVENT_QERR_SIGN = 1u << 5,   // qErr helps with the opposite sign: it is used so
    SERVO_EVENT_QERR_NONE = 1u << 6,   // qErr has nothing to do with the pulses: it is not used
    SERVO_EVENT_LATE = 1u << 7,        // this step came more than 1.5 s after the last one
    SERVO_EVENT_SATURATED = 1u << 8,   // a value was held at its limit
    SERVO_EVENT_AGEING = 1u << 9,      // ageing is seen, and used in holdover
    SERVO_EVENT_LOADED = 1u << 10,     // this step orders a load
    SERVO_EVENT_INPUT = 1u << 11,      // an input was impossible and not used
    SERVO_EVENT_EARLY = 1u << 12,      // this step came less than 0.5 s after the last one: nothing was done
    SERVO_EVENT_QERR_LATE = 1u << 13,  // qErr is that of the next pulse: the one before is used
    SERVO_EVENT_UNVOUCHED = 1u << 14,  // no message vouches for this pulse: it does not count
    SERVO_EVENT_DOUBLE = 1u << 15,     // more than one edge came
    SERVO_EVENT_MOVED = 1u << 16       // somebody else has moved the clock: cold
};

// Noise of oscillator and receiver are one standard deviation each. servo_config_default() is for an unknown
// oscillator and receiver; a preset only shortens the learning.
typedef struct {
    uint32_t white_ppt;        // white FM: Allan deviation over 1 s, in 1e-12
    uint32_t flicker_ppt;      // flicker FM: floor of the Allan deviation, in 1e-12
    uint32_t walk_ppt;         // random walk FM: change of frequency in 1 s, in 1e-12
    uint32_t temperature_ppt;  // change of frequency in an hour of holdover that no history shows, in 1e-12
    uint32_t learn;            // 0: believe the four above; 1: they are where learning begins
    uint32_t wander_ps;        // receiver: slow error that cannot be averaged away
    uint32_t jitter_ps;        // receiver: white error of a pulse, qErr taken off
    uint32_t sawtooth_ps;      // receiver: half the span of the quantisation that qErr tells
    uint32_t capture_ps;       // span of the capture's quantisation
    uint32_t slew_limit_ppb;   // 1 to 100000
    uint32_t frequency_limit_ppb;  // of the oscillator, 1 to 200000: more is a failure
    uint32_t lock_pulses;          // good pulses in a row before locked, 4 to 1000
    uint32_t lock_bound_ns;        // locked needs a bound below this; twice this ends it
    uint32_t holdover_bound_ns;    // a larger bound is no time any more: cold
} servo_config;

typedef struct {
    uint64_t now_q32;  // card time at this call, 32.32
    // Card time of the pulse, 32.32, cable and antenna delay taken off. Of several edges: the one nearest to
    // servo_output.expected_q32 (edges.h).
    uint64_t pulse_q32;
    int64_t slew_left_q64;  // clock.slew_left at this call
    uint64_t tai_s;         // the second of TAI (since 1970-01-01) that the receiver names for this pulse
    int32_t qerr_ps;        // UBX-TIM-TP qErr of this pulse, as received
    uint32_t accuracy_ns;   // the receiver's own estimate (tAcc), one standard deviation
    uint32_t flags;
    int32_t other_q32;  // with SERVO_IN_DOUBLE: from pulse_q32 to the next nearest edge, held at +-0.5 s
    uint32_t moves;     // how often somebody else has loaded the clock, slewed it or set its rate so far
    uint32_t reserved;
} servo_input;

typedef struct {
    uint64_t increment_q72;  // seconds a cycle, within SERVO_LOWEST_Q72 and SERVO_HIGHEST_Q72
    int64_t load_delta_q32;  // to be added to card time, modulo 2^64
    int64_t slew_amount_q64;
    uint64_t slew_step_q64;  // 36 bits
    uint32_t bound_ns;       // |card time - TAI| until the next step, meant to hold 99.9 % of the time
    uint32_t flags;
    uint32_t state;
    uint32_t events;
    // For the log and `twinstamp clock status`.
    int64_t offset_ps;       // estimated card time - TAI at this call, before the slew
    int64_t innovation_ps;   // pulse minus prediction; 0 without a pulse
    int64_t frequency_ppt;   // estimated oscillator frequency - nominal, in 1e-12
    int64_t ageing_ppt_day;  // what holdover uses, in 1e-12 a day; 0: not seen
    uint32_t sigma_ps;       // of the estimate, without the receiver's wander
    uint32_t frequency_sigma_ppt;
    uint32_t white_ppt, flicker_ppt, walk_ppt;  // the oscillator as learned
    int32_t qerr_use;                           // +1 as received, -1 opposite sign, 0 not used
    uint32_t holdover_s;                        // since the last pulse that was believed
    int32_t expected_q32;  // where the next pulse is expected: card time past its second; 0 while cold
} servo_output;

#define SERVO_OCTAVES 12    // second differences of the oscillator's phase over 1, 2, 4 ... 2048 s
#define SERVO_SNAPSHOTS 16  // one every 4 s, to go back to when the receiver was pulled away
#define SERVO_MEANS 3
#define SERVO_QERR_USES 5  // as received, opposite, the one before as received, opposite, none

// Phase of the free oscillator (as if the clock had never been adjusted), in 1e-18 s, modulo 2^64.
typedef struct {
    uint64_t phase_as[9];  // ring; one entry every max(1, m / 4) s
    int64_t mean_ps2;      // mean square of phase(t) - 2 phase(t - m) + phase(t - 2m)
    uint32_t count;        // of them, the prior's weight included while it is there
    uint32_t held;         // good entries of the ring, from the newest on
    uint32_t head;
    uint32_t learned;  // the prior has left
} servo_octave;

typedef struct {
    uint64_t epoch_s, phase_as;
    int64_t frequency_as_s, p_yy_fs2;
} servo_snapshot;

// Owned by the caller, opaque to it: may be copied, compared and kept, not written.
typedef struct {
    servo_config config;
    servo_octave octave[SERVO_OCTAVES];
    servo_snapshot snapshot[SERVO_SNAPSHOTS];  // newest first
    uint64_t last_now_q32;                     // card time of the last call, loads applied
    uint64_t epoch_s;                          // TAI second of the last pulse that was due
    uint64_t increment_q72;                    // what the clock was told
    int64_t steer_as_s;                        // that, against nominal: in 1e-18
    uint64_t control_as;               // how far the clock was moved against its oscillator, modulo 2^64
    int64_t offset_as;                 // card time - TAI at the last call, the slew ordered there included
    int64_t frequency_as_s;            // the oscillator's, against nominal
    int64_t p_xx_ps2, p_xy, p_yy_fs2;  // covariance: ps^2, ps fs/s, (fs/s)^2
    int64_t white_ps2, flicker_fs2, walk_fs2;  // noise: ps^2/s, (fs/s)^2, (fs/s)^2/s
    int64_t mean_as_s[SERVO_MEANS];  // frequency over a third, three and nine times the filter's own time
    uint64_t mean_phase_as;
    uint64_t candidate_as;    // free phase of the last pulse that was refused
    int64_t disputed_as;      // how far off the disputed pulses are; 0: messages are what is disputed
    int64_t pulled_as;        // how far off the pulses were when a pull's end was last looked for
    uint64_t disagreement_s;  // by how much messages contradict
    uint64_t cold_pulse_q32, cold_first_q32, cold_tai_s, cold_first_s;
    uint64_t qerr_phase_as[2];
    int64_t qerr_ps[3], qerr_square[SERVO_QERR_USES];
    uint64_t ageing_phase_as;
    int64_t ageing_block_as_s, ageing_sum_as_s, ageing_square_fs2, ageing_as_s2;
    uint32_t state, started, good, missed, candidates, inside, outside, returning, pulled, pulled_s, agreed,
        disagreed;
    uint32_t cold_count, load_ordered, fresh, refused, stuck, locked_once, snapshots;
    uint32_t mean_count, mean_held;
    uint32_t qerr_count, qerr_run, qerr_use, qerr_proven, ageing_count, ageing_held;
    uint32_t residual_q16;           // mean of innovation^2 over its variance
    uint32_t doubt_ps;               // added to the bound, fades
    uint32_t accuracy_ps, usual_ps;  // the receiver's own estimate: the last one, and what it usually is
    uint32_t unvouched_s;            // since the last second that a message with a fix was for
    uint32_t unvouched;              // pulses came that nobody vouched for
    uint32_t moves;                  // as last seen
    uint32_t holdover_s, bound_ns, reserved;
} servo_state;

// What servo_init() says.
enum { SERVO_OK = 0, SERVO_BAD_CONFIG = 1 };

// Preset for an unknown oscillator and receiver.
void servo_config_default(servo_config* config);

// SERVO_BAD_CONFIG where config is outside the limits named at its fields (noise: at most 10^9).
uint32_t servo_config_check(const servo_config* config);

// Starts cold. Returns SERVO_BAD_CONFIG, and leaves *state in SERVO_FAILED, where servo_config_check() says
// so.
uint32_t servo_init(servo_state* state, const servo_config* config);

// One step; see above. Any input is safe: nothing hangs, nothing overflows; what cannot be is not used and
// reported (SERVO_EVENT_INPUT, SERVO_EVENT_SATURATED).
void servo_step(servo_state* state, const servo_input* input, servo_output* output);

#ifdef __cplusplus
}
#endif

#endif
