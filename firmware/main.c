// SPDX-License-Identifier: Apache-2.0
// The firmware: waits for pulses, bytes and commands, steps the servo once a second, moves the clock.
//
// One loop, no interrupt. When the servo is cold, seconds are counted from the last pulse (or from nothing);
// else they are those of card time. A step comes 100 ms after the second began where its message is there,
// and 500 ms after it at the latest, with or without a pulse.
#include "edges.h"
#include "mailbox.h"
#include "mmio.h"
#include "receiver.h"
#include "second_input.h"
#include "servo.h"
#include "twinstamp_regs.h"

#define TENTH_Q32 (SECOND_Q32 / 10)
#define TICK_CYCLES 1250000u        // 10 ms
#define SILENCE_TICKS 10u           // longer than any pause within a message
#define WATCHDOG_CYCLES 400000000u  // 3.2 s: three steps that do not come
#define OUTPUT_LIMIT_Q32 (SECOND_Q32 / 500)
#define QUEUE 16u  // edges that the capture keeps
// From reading card time to its load, counted in the closed loop (tests/loop/test_clock.py): cycles of 8 ns.
#define LOAD_CYCLES 138u
#define LOAD_LATENCY_Q32 (LOAD_CYCLES * 34360u / 1000u)

// Read over the bus by the host: nothing here may be left to a register.
static volatile mailbox box __attribute__((section(".mailbox"), aligned(8)));
static receiver gps;
static second names;
static servo_state servo;
static servo_config config;

extern uint32_t _stack_limit[], _stack_top[];

// What the clock was told: whatever else stands in its registers somebody else wrote.
typedef struct {
    uint32_t epoch;
    uint64_t increment_q72, slew_step_q64, slew_amount_q64;
} orders;

typedef struct {
    uint64_t second_q32;  // card time of the second to be stepped
    edges came;           // of this second
    uint32_t early;       // the capture says so of the one that is taken for the pulse
    uint32_t glitches;
    uint32_t cold;
    uint32_t accept;
    uint32_t moves;  // how often somebody else has moved the clock
    orders told;
} course;

static uint64_t now_q32(void) {
    return mmio_read64(CARD_CLOCK_NOW);
}

static void take_edges(course* at) {
    for (uint32_t left = QUEUE; left > 0; --left) {
        const uint32_t flags = mmio_read(CARD_PPS_QUEUE_FLAGS);
        if (!(flags & CARD_PPS_QUEUE_FLAGS_VALID)) return;
        // Rounded to 2^-32 s.
        const uint64_t q32 = mmio_read64(CARD_PPS_QUEUE_TIME) + (flags & CARD_PPS_QUEUE_FLAGS_HALF ? 1u : 0u);
        mmio_write(CARD_PPS_QUEUE_NEXT, 1);
        box.pulses = box.pulses + 1;
        if (at->came.count > 0) box.extra_pulses = box.extra_pulses + 1;
        if (at->cold && at->came.count == 0) at->second_q32 = q32;
        if (edges_take(&at->came, q32))
            at->early = flags & (CARD_PPS_QUEUE_FLAGS_EARLY | CARD_PPS_QUEUE_FLAGS_DOUBLED);
    }
}

static void drop_edges(void) {
    for (uint32_t left = QUEUE; left > 0; --left) mmio_write(CARD_PPS_QUEUE_NEXT, 1);
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

static void next_second(course* at, uint32_t expected_q32) {
    at->early = 0;
    edges_start(&at->came, !at->cold, at->second_q32 + (uint64_t)(int64_t)(int32_t)expected_q32);
}

static void restart_servo(course* at) {
    // Within its limits: checked before.
    (void)servo_init(&servo, &config);
    at->cold = 1;
    second_forget(&names);
    next_second(at, 0);
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
            if (place >= sizeof config / 4) {
                result = RESULT_REFUSED;
                break;
            }
            wanted = config;
            ((uint32_t*)&wanted)[place] = (uint32_t)argument;
            if (servo_config_check(&wanted) != SERVO_OK) {
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

static void read_orders(orders* told) {
    told->epoch = mmio_read(CARD_CLOCK_EPOCH);
    told->increment_q72 = mmio_read64(CARD_CLOCK_INCREMENT);
    told->slew_step_q64 = mmio_read64(CARD_CLOCK_SLEW_STEP);
    told->slew_amount_q64 = mmio_read64(CARD_CLOCK_SLEW_AMOUNT);
}

// Somebody else has loaded, slewed or set the clock: nobody knows what time it is. Edges and messages so far
// stand in the old time.
static void give_up(course* at) {
    ++at->moves;
    control(SERVO_COLD, 0, 0);
    mmio_write(CARD_CLOCK_BOUND, SERVO_BOUND_UNKNOWN);
    mmio_write64(CARD_CLOCK_SLEW_AMOUNT, 0);
    read_orders(&at->told);
    drop_edges();
    second_forget(&names);
    at->cold = 1;
    at->second_q32 = now_q32();
    next_second(at, 0);
}

static uint32_t stack_low(void) {
    const uint32_t* word = _stack_limit;
    while (word < _stack_top && *word == 0xDEADBEEFu) ++word;
    return (uint32_t)word;
}

static void step(course* at) {
    static servo_input in;
    static servo_output out;
    in = (servo_input){0};
    orders now;
    read_orders(&now);
    if (now.epoch != at->told.epoch || now.increment_q72 != at->told.increment_q72 ||
        now.slew_step_q64 != at->told.slew_step_q64 || now.slew_amount_q64 != at->told.slew_amount_q64)
        give_up(at);
    edges_tell(&at->came, &in);
    second_name_t name = {0};
    second_input(&names, at->second_q32, &name, &in);
    if (at->early) in.flags |= SERVO_IN_EARLY;
    in.moves = at->moves;
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

    in.slew_left_q64 = (int64_t)mmio_read64(CARD_CLOCK_SLEW_LEFT);
    in.now_q32 = now_q32();
    servo_step(&servo, &in, &out);

    const uint32_t locked = out.flags & SERVO_OUT_LOCKED;
    if (!locked) control(out.state, 0, 0);
    if (out.flags & SERVO_OUT_LOAD) {
        const uint64_t ahead_q32 = (uint64_t)out.load_delta_q32 + LOAD_LATENCY_Q32;
        mmio_write64(CARD_CLOCK_LOAD_TIME, now_q32() + ahead_q32);
        control(out.state, 0, 1);
    }
    at->told.increment_q72 = out.increment_q72;
    mmio_write64(CARD_CLOCK_INCREMENT, out.increment_q72);
    if (out.flags & SERVO_OUT_SLEW) {
        at->told.slew_step_q64 = out.slew_step_q64;
        at->told.slew_amount_q64 = (uint64_t)out.slew_amount_q64;
        mmio_write64(CARD_CLOCK_SLEW_STEP, at->told.slew_step_q64);
        mmio_write64(CARD_CLOCK_SLEW_AMOUNT, at->told.slew_amount_q64);
    }
    publish_offset(out.state != SERVO_COLD ? now_q32() >> 32 : name.flags & SECOND_TAI ? name.tai_s : 0);
    mmio_write(CARD_CLOCK_BOUND, out.bound_ns);
    if (locked) control(out.state, 1, 0);

    const uint64_t done_q32 = now_q32();
    uint64_t took_q32 = done_q32 - in.now_q32;
    // A load that was ordered was done, unless the clock has refused it. Of any other main() takes care.
    if ((out.flags & SERVO_OUT_LOAD) && !(mmio_read(CARD_CLOCK_STATUS) & CARD_CLOCK_STATUS_LOAD_REFUSED)) {
        const uint64_t delta_q32 = (uint64_t)out.load_delta_q32;
        took_q32 -= delta_q32;
        second_shift(&names, delta_q32);
        at->second_q32 += delta_q32;
        ++at->told.epoch;
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

    if (out.state == SERVO_COLD && !at->cold) second_forget(&names);
    at->cold = out.state == SERVO_COLD;
    // The next second: a second on from this one, or the whole second of card time next to that.
    at->second_q32 += SECOND_Q32;
    if (!at->cold) at->second_q32 = (at->second_q32 + SECOND_Q32 / 2) & ~(SECOND_Q32 - 1);
    next_second(at, (uint32_t)out.expected_q32);
    mmio_write(CARD_CPU_PET, 1);
}

int main(void) {
    servo_config_default(&config);
    static course at;
    receiver_init(&gps);
    second_init(&names);
    restart_servo(&at);

    mmio_write(CARD_CPU_WATCHDOG, WATCHDOG_CYCLES);
    mmio_write(CARD_CPU_TICK, TICK_CYCLES);
    mmio_write(CARD_CPU_PET, 1);
    control(SERVO_COLD, 0, 0);
    mmio_write(CARD_CLOCK_BOUND, SERVO_BOUND_UNKNOWN);
    mmio_write(CARD_PPS_CONTROL, mmio_read(CARD_PPS_CONTROL) | CARD_PPS_CONTROL_ENABLE);
    drop_edges();
    at.glitches = mmio_read(CARD_PPS_GLITCHES);
    read_orders(&at.told);
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
        if (mmio_read(CARD_CLOCK_EPOCH) != at.told.epoch) give_up(&at);
        if (events & CARD_CPU_EVENTS_PPS) take_edges(&at);
        listen(events);
        if (events & CARD_CPU_EVENTS_COMMAND) command(&at);
        // Signed: a second that is still to come is not due.
        const int64_t since_q32 = (int64_t)(now_q32() - at.second_q32);
        const uint32_t heard = at.came.count > 0 && second_complete(&names, edges_nearest(&at.came));
        if (since_q32 >= (int64_t)(5 * TENTH_Q32) || (heard && since_q32 >= (int64_t)TENTH_Q32)) step(&at);
    }
}
