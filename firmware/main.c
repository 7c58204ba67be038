// SPDX-License-Identifier: Apache-2.0
// The firmware: waits for pulses, bytes and commands, steps the servo once a second, moves the clock.
//
// One loop, no interrupt. When the servo is cold, seconds are counted from the last pulse (or from nothing);
// else they are those of card time. A step comes 100 ms after the second began where its message is there,
// and 500 ms after it at the latest, with or without a pulse.
#include "mailbox.h"
#include "mmio.h"
#include "receiver.h"
#include "second.h"
#include "servo.h"
#include "twinstamp_regs.h"

#define TENTH_Q32 (SECOND_Q32 / 10)
#define TICK_CYCLES 1250000u        // 10 ms
#define SILENCE_TICKS 10u           // longer than any pause within a message
#define WATCHDOG_CYCLES 400000000u  // 3.2 s: three steps that do not come
#define OUTPUT_LIMIT_Q32 (SECOND_Q32 / 500)
#define LOAD_LATENCY_Q32 9u  // from reading card time to its load: some 250 cycles

// Read over the bus by the host: nothing here may be left to a register.
static volatile mailbox box __attribute__((section(".mailbox"), aligned(8)));
static receiver gps;
static second names;
static servo_state servo;
static servo_config config;

extern uint32_t _stack_limit[], _stack_top[];

typedef struct {
    uint64_t second_q32;  // card time of the second to be stepped
    uint64_t pulse_q32;
    uint32_t edges;  // as last seen
    uint32_t pulse;  // one came for this second
    uint32_t flags;  // SERVO_IN_*, of this second
    uint32_t glitches;
    uint32_t cold;
    uint32_t accept;
} course;

static uint64_t now_q32(void) {
    return mmio_read64(CARD_CLOCK_NOW);
}

// The edge that stands in the registers, rounded to 2^-32 s.
static uint32_t read_edge(uint64_t* q32, uint32_t* flags) {
    uint32_t edges = mmio_read(CARD_PPS_EDGES);
    for (uint32_t i = 0; i < 4; ++i) {
        *q32 = mmio_read64(CARD_PPS_EDGE_TIME);
        *q32 += mmio_read(CARD_PPS_EDGE_FRACTION) >> 31;
        *flags = mmio_read(CARD_PPS_EDGE_FLAGS);
        const uint32_t again = mmio_read(CARD_PPS_EDGES);
        if (again == edges) break;
        edges = again;
    }
    return edges;
}

static void look_for_pulse(course* at) {
    uint64_t q32;
    uint32_t edge_flags;
    const uint32_t edges = read_edge(&q32, &edge_flags);
    const uint32_t came = edges - at->edges;
    if (came == 0) return;
    at->edges = edges;
    box.pulses += came;
    // Of several only the last still stands; the first is wanted, so it counts only where it is seen at once.
    if (at->pulse || came > 1) {
        at->flags |= SERVO_IN_DOUBLE;
        box.extra_pulses += at->pulse ? came : came - 1;
    }
    if (at->pulse) return;
    at->pulse = 1;
    at->pulse_q32 = q32;
    at->flags |= SERVO_IN_PULSE;
    if (edge_flags & (CARD_PPS_EDGE_FLAGS_EARLY | CARD_PPS_EDGE_FLAGS_DOUBLED)) at->flags |= SERVO_IN_EARLY;
    if (at->cold) at->second_q32 = q32;
    second_pulse(&names, q32);
}

static void take_messages(uint32_t kind) {
    while (kind != RECEIVER_NONE) {
        second_message(&names, &gps, kind, now_q32());
        kind = receiver_next(&gps);
    }
}

static void read_bytes(void) {
    // What came meanwhile waits for the next round: the loop is bounded.
    for (uint32_t left = mmio_read(CARD_UART_STATUS) & 0xFFFFu; left > 0; --left) {
        const uint32_t byte = mmio_read(CARD_UART_RECEIVE);
        if (!(byte & CARD_UART_RECEIVE_VALID)) break;
        take_messages(receiver_byte(&gps, (uint8_t)byte));
    }
}

static void listen(uint32_t events) {
    static uint32_t quiet;  // ticks
    if (events & CARD_CPU_EVENTS_PPS) receiver_pulse(&gps);
    if (events & CARD_CPU_EVENTS_UART) {
        read_bytes();
        quiet = 0;
    } else if ((events & CARD_CPU_EVENTS_TICK) && ++quiet == SILENCE_TICKS) {
        take_messages(receiver_silence(&gps));
    }
}

static void restart_servo(course* at) {
    // Within its limits: checked before.
    (void)servo_init(&servo, &config);
    at->cold = 1;
}

static void command(course* at) {
    const uint32_t word = mmio_read(CARD_CPU_COMMAND);
    const uint64_t argument = mmio_read64(CARD_CPU_ARGUMENT);
    uint32_t result = RESULT_DONE;
    switch (word & 0xFFFFu) {
        case COMMAND_ACCEPT:
            at->accept = 1;
            break;
        case COMMAND_RESTART:
            restart_servo(at);
            break;
        case COMMAND_OFFSET:
            if (argument == 0)
                names.told.until_s = 0;
            else if (!second_tell(&names, (int32_t)(argument >> 48), argument & UINT64_C(0xFFFFFFFFFFFF)))
                result = RESULT_REFUSED;
            break;
        case COMMAND_LEAP:
            if (!second_tell_leap(&names, (int16_t)(argument >> 48), argument & UINT64_C(0xFFFFFFFFFFFF)))
                result = RESULT_REFUSED;
            break;
        case COMMAND_SET: {
            const uint32_t place = (uint32_t)(argument >> 32);
            static servo_config wanted;
            static servo_state tried;
            if (place >= sizeof config / 4) {
                result = RESULT_REFUSED;
                break;
            }
            wanted = config;
            ((uint32_t*)&wanted)[place] = (uint32_t)argument;
            if (servo_init(&tried, &wanted) != SERVO_OK) {
                result = RESULT_REFUSED;
                break;
            }
            config = wanted;
            box.config = config;
            restart_servo(at);
            break;
        }
        default:
            result = RESULT_UNKNOWN;
    }
    mmio_write(CARD_CPU_ANSWER, (word & 0xFFFF0000u) | result);
}

static void control(uint32_t state, uint32_t locked, uint32_t load) {
    mmio_write(CARD_CLOCK_CONTROL, CARD_CLOCK_CONTROL_DISCIPLINED | state << CARD_CLOCK_CONTROL_STATE_SHIFT |
                                       (locked ? CARD_CLOCK_CONTROL_LOCKED : 0) |
                                       (load ? CARD_CLOCK_CONTROL_LOAD : 0));
}

static uint32_t offset_word(int32_t offset_s, int32_t leap_s) {
    return ((uint32_t)offset_s & 0xFFFFu) |
           ((uint32_t)leap_s << CARD_CLOCK_UTC_OFFSET_LEAP_SHIFT & CARD_CLOCK_UTC_OFFSET_LEAP) |
           (names.source != SECOND_NOBODY ? CARD_CLOCK_UTC_OFFSET_VALID : 0);
}

// TAI - UTC into the registers; at a second of TAI, 0: not known. Kept through seconds without a pulse.
static void publish_offset(uint64_t tai_s) {
    second_publish(&names, tai_s);
    const second_offset* of = &names.published;
    const uint32_t leap_at = (uint32_t)of->leap_tai_s;
    if (mmio_read(CARD_CLOCK_LEAP_SECOND) != leap_at) {
        // In between there is no leap second: the last one is long over, or the next one is still to come.
        mmio_write(CARD_CLOCK_UTC_OFFSET, offset_word(of->offset_s, 0));
        mmio_write(CARD_CLOCK_LEAP_SECOND, leap_at);
    }
    mmio_write(CARD_CLOCK_UTC_OFFSET, offset_word(of->offset_s, of->leap_s));
}

static uint32_t stack_low(void) {
    const uint32_t* word = _stack_limit;
    while (word < _stack_top && *word == 0xDEADBEEFu) ++word;
    return (uint32_t)word;
}

static void step(course* at) {
    second_name_t name = {0};
    if (at->pulse)
        second_name(&names, &name);
    else
        second_missed(&names);

    static servo_input in;
    static servo_output out;
    in = (servo_input){0};
    in.flags = at->flags;
    if (at->pulse) in.pulse_q32 = at->pulse_q32;
    if (name.flags & SECOND_TAI) {
        in.flags |= SERVO_IN_TAI;
        in.tai_s = name.tai_s;
    }
    if (name.flags & SECOND_QERR) {
        in.flags |= SERVO_IN_QERR;
        in.qerr_ps = name.qerr_ps;
    }
    if (name.flags & SECOND_ACCURACY) {
        in.flags |= SERVO_IN_ACCURACY;
        in.accuracy_ns = name.accuracy_ns;
    }
    const uint32_t glitches = mmio_read(CARD_PPS_GLITCHES);
    if (glitches != at->glitches) in.flags |= SERVO_IN_GLITCH;
    at->glitches = glitches;
    const uint32_t status = mmio_read(CARD_CLOCK_STATUS);
    if (status & (CARD_CLOCK_STATUS_LOAD_REFUSED | CARD_CLOCK_STATUS_INCREMENT_REFUSED)) {
        in.flags |= SERVO_IN_REFUSED;
        mmio_write(CARD_CLOCK_STATUS, CARD_CLOCK_STATUS_LOAD_REFUSED | CARD_CLOCK_STATUS_INCREMENT_REFUSED);
    }
    if (at->accept) in.flags |= SERVO_IN_ACCEPT;
    at->accept = 0;

    const uint32_t epoch = mmio_read(CARD_CLOCK_EPOCH);
    in.slew_left_q64 = (int64_t)mmio_read64(CARD_CLOCK_SLEW_LEFT);
    in.now_q32 = now_q32();
    servo_step(&servo, &in, &out);

    const uint32_t locked = out.flags & SERVO_OUT_LOCKED;
    if (!locked) control(out.state, 0, 0);
    if (out.flags & SERVO_OUT_LOAD) {
        mmio_write64(CARD_CLOCK_LOAD_TIME, now_q32() + (uint64_t)out.load_delta_q32 + LOAD_LATENCY_Q32);
        control(out.state, 0, 1);
    }
    mmio_write64(CARD_CLOCK_INCREMENT, out.increment_q72);
    if (out.flags & SERVO_OUT_SLEW) {
        mmio_write64(CARD_CLOCK_SLEW_STEP, out.slew_step_q64);
        mmio_write64(CARD_CLOCK_SLEW_AMOUNT, (uint64_t)out.slew_amount_q64);
    }
    publish_offset(out.state != SERVO_COLD ? now_q32() >> 32 : name.flags & SECOND_TAI ? name.tai_s : 0);
    mmio_write(CARD_CLOCK_BOUND, out.bound_ns);
    if (locked) control(out.state, 1, 0);

    const uint64_t done_q32 = now_q32();
    uint64_t took_q32 = done_q32 - in.now_q32;
    // A load that was ordered was done, unless the epoch says that it was refused.
    if (mmio_read(CARD_CLOCK_EPOCH) != epoch) {
        const uint64_t delta_q32 = (uint64_t)out.load_delta_q32;
        took_q32 -= delta_q32;
        second_shift(&names, delta_q32);
        at->second_q32 += delta_q32;
    }
    const uint32_t took = took_q32 > 0xFFFFFFFFu ? 0xFFFFFFFFu : (uint32_t)took_q32;

    box.changes = box.changes + 1;
    volatile mailbox_entry* entry = &box.log[box.steps % MAILBOX_LOG];
    entry->number = box.steps;
    entry->input = in;
    entry->output = out;
    box.steps = box.steps + 1;
    box.utc = names.published;
    box.utc_source = names.source;
    for (uint32_t i = 0; i < RECEIVER_COUNTS; ++i) box.receiver[i] = gps.counts[i];
    if (took > box.slowest_q32) box.slowest_q32 = took;
    if (took > OUTPUT_LIMIT_Q32) box.late_outputs = box.late_outputs + 1;
    box.stack_low = stack_low();
    box.changes = box.changes + 1;

    at->pulse = 0;
    at->flags = 0;
    at->cold = out.state == SERVO_COLD;
    // The next second: a second on from this one, or the whole second of card time next to that.
    at->second_q32 += SECOND_Q32;
    if (!at->cold) at->second_q32 = (at->second_q32 + SECOND_Q32 / 2) & ~(SECOND_Q32 - 1);
    mmio_write(CARD_CPU_PET, 1);
}

int main(void) {
    servo_config_default(&config);
    static course at;
    restart_servo(&at);
    receiver_init(&gps);
    second_init(&names);

    mmio_write(CARD_CPU_WATCHDOG, WATCHDOG_CYCLES);
    mmio_write(CARD_CPU_TICK, TICK_CYCLES);
    mmio_write(CARD_CPU_PET, 1);
    control(SERVO_COLD, 0, 0);
    mmio_write(CARD_CLOCK_BOUND, SERVO_BOUND_UNKNOWN);
    mmio_write(CARD_PPS_CONTROL, mmio_read(CARD_PPS_CONTROL) | CARD_PPS_CONTROL_ENABLE);
    at.edges = mmio_read(CARD_PPS_EDGES);
    at.glitches = mmio_read(CARD_PPS_GLITCHES);
    at.second_q32 = now_q32();

    box.magic = MAILBOX_MAGIC;
    box.version = MAILBOX_VERSION;
    box.bytes = sizeof box;
    box.log_entries = MAILBOX_LOG;
    box.config = config;
    mmio_write(CARD_CPU_MAILBOX, (uint32_t)&box);

    for (;;) {
        mmio_wait();
        const uint32_t events = mmio_read(CARD_CPU_EVENTS);
        mmio_write(CARD_CPU_EVENTS_CLEAR,
                   events & (CARD_CPU_EVENTS_PPS | CARD_CPU_EVENTS_TICK | CARD_CPU_EVENTS_COMMAND));
        if (events & CARD_CPU_EVENTS_PPS) look_for_pulse(&at);
        listen(events);
        if (events & CARD_CPU_EVENTS_COMMAND) command(&at);
        // Signed: a second that is still to come is not due.
        const int64_t since_q32 = (int64_t)(now_q32() - at.second_q32);
        const uint32_t heard = at.pulse && second_complete(&names);
        if (since_q32 >= (int64_t)(5 * TENTH_Q32) || (heard && since_q32 >= (int64_t)TENTH_Q32)) step(&at);
    }
}
