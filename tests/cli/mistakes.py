# SPDX-License-Identifier: Apache-2.0
"""The likeliest mistakes with each command: what was typed, and the
answer: what is wrong, where, and what to do next. {d} is a folder; its files are made by `prepare`."""

from __future__ import annotations

from pathlib import Path

from twinstamp.demo.made import PCAP_HEADER

MISTAKES: dict[str, list[tuple[str, str]]] = {
    "dedup": [
        (
            "dedup {d}/absent.pcap {d}/o.pcap --window 5",
            "{d}/absent.pcap: cannot be opened: No such file or directory; give an existing capture",
        ),
        ("dedup {d} {d}/o.pcap --window 5", "{d}: is a directory; give a capture file"),
        (
            "dedup {d}/text.txt {d}/o.pcap --window 5",
            "{d}/text.txt: byte 0: this is no capture: it begins with 6e 6f 20 63; give a pcap or pcapng capture (editcap converts others)",
        ),
        (
            "dedup {d}/feed.pcap {d}/o.pcap",
            "say how far back to look: --window N (frames), --time T (e.g. 50ms), or both",
        ),
        ("dedup {d}/feed.pcap --window 5", "OUT is missing (only --action count works without it)"),
        (
            "dedup {d}/feed.pcap {d}/o.pcap --time 50",
            "--time '50' is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us",
        ),
        (
            "dedup {d}/feed.pcap {d}/feed.pcap --window 5",
            "{d}/feed.pcap: is the same file as the input {d}/feed.pcap; choose another output",
        ),
        (
            "dedup {d}/feed.pcap {d}/no/o.pcap --window 5",
            "{d}/no/o.pcap: cannot be created: No such file or directory; choose another output",
        ),
        (
            "dedup {d}/feed.pcap /dev/full --window 5 --format pcap",
            "/dev/full: byte 0: cannot write: No space left on device; 0 frames are written; free space or choose another place",
        ),
        (
            "dedup {d}/feed.pcap {d}/o.pcap --window 5 --profile router",
            "argument --profile: invalid choice: 'router'",
        ),
        (
            "dedup {d}/feed.pcap {d}/o.pcap --window 5 --keep arq",
            "unknown frame class 'arq': known are other, arp, nd, mld, igmp, llc, lldp, slow, eapol, pause, cfm, loop, vrrp",
        ),
        (
            "dedup {d}/feed.pcap {d}/o.pcap --window 5 --action tag",
            "tagged duplicates need a pcapng output (a pcap file holds no comments): name it .pcapng, give --format pcapng, or ask for --action drop",
        ),
        (
            "dedup {d}/cut.pcap {d}/o.pcap --window 5 --json {d}/no/r.json",
            "{d}/no/r.json: the report cannot be written: No such file or directory; give another place",
        ),
        (
            "dedup {d}/nothing.pcap {d}/o.pcap --window 5",
            "{d}/nothing.pcap: is empty; a pcap or pcapng capture is expected",
        ),
    ],
    "analyse": [
        (
            "analyse {d}/absent.pcap",
            "{d}/absent.pcap: cannot be opened: No such file or directory; give an existing capture",
        ),
        (
            "analyse {d}/text.txt",
            "{d}/text.txt: byte 0: this is no capture: it begins with 6e 6f 20 63; give a pcap or pcapng capture (editcap converts others)",
        ),
        ("analyse {d}/nothing.pcap", "{d}/nothing.pcap: is empty; a pcap or pcapng capture is expected"),
        ("analyse {d}", "{d}: is a directory; give a capture file"),
        ("analyse {d}/feed.pcap --profile router", "argument --profile: invalid choice: 'router'"),
        (
            "analyse {d}/feed.pcap --recall 99.9",
            "a recall of 99.9 is not possible: give a share above 0, at most 1, e.g. 0.999",
        ),
        ("analyse {d}/feed.pcap --plot {d}/o.xyz", "name it .png, .svg or .pdf"),
        (
            "analyse {d}/feed.pcap --plot {d}/no/o.png",
            "{d}/no/o.png: the plot cannot be written: No such file or directory; give another place",
        ),
        (
            "analyse {d}/feed.pcap --json {d}/feed.pcap",
            "--json {d}/feed.pcap: is the same file as {d}/feed.pcap; choose another name",
        ),
        ("analyse {d}/feed.pcap --workers 0", "0 workers: must be 1 to 256"),
    ],
    "rules": [
        (
            "rules check {d}/absent.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        (
            "rules check {d}/unknown-key.toml",
            "{d}/unknown-key.toml:2: rule 0: unknown key 'protocl': a rule has source, destination, source_port, destination_port, protocol, vlan, tcp_flags, icmp, either_direction, action",
        ),
        (
            "rules check {d}/bad-port.toml",
            "{d}/bad-port.toml:3: rule 0: destination_port 70000-70000: a range goes upwards within 0 to 65535",
        ),
        (
            "rules check {d}/broken.toml",
            "{d}/broken.toml:1: Expected ']]' at the end of an array declaration: not TOML; mend that line",
        ),
        ("rules check {d}/feed.pcap", "{d}/feed.pcap:1: byte 0 (0xd4) is not UTF-8 text: give TOML"),
        ("rules check {d}", "{d}: cannot be read: Is a directory; give a file that exists"),
        (
            "rules match {d}/absent.pcap --rules {d}/rules.toml --out {d}/o.csv",
            "{d}/absent.pcap: cannot be opened: No such file or directory; give an existing capture",
        ),
        (
            "rules match {d}/feed.pcap --rules {d}/rules.toml --out {d}/no/o.csv",
            "{d}/no/o.csv: cannot be created: No such file or directory; choose another --out",
        ),
        (
            "rules match {d}/feed.pcap --rules {d}/rules.toml --out {d}/feed.pcap",
            "--out {d}/feed.pcap: is the same file as {d}/feed.pcap; choose another name",
        ),
        (
            "rules match {d}/text.txt --rules {d}/rules.toml --out {d}/o.csv",
            "{d}/text.txt: byte 0: this is no capture: it begins with 6e 6f 20 63; give a pcap or pcapng capture (editcap converts others)",
        ),
        ("rules match {d}/feed.pcap --out {d}/o.csv", "the following arguments are required: --rules"),
        (
            "rules match {d}/feed.pcap --rules {d}/rules.toml --out /dev/full",
            "/dev/full: cannot be written: No space left on device; the CSV is incomplete",
        ),
    ],
    "balance": [
        (
            "balance {d}/absent.pcap --rules {d}/rules.toml --out-dir {d}/s --servers 2",
            "{d}/absent.pcap: cannot be opened: No such file or directory; give an existing capture",
        ),
        (
            "balance {d}/text.txt --rules {d}/rules.toml --out-dir {d}/s --servers 2",
            "{d}/text.txt: byte 0: this is no capture: it begins with 6e 6f 20 63; give a pcap or pcapng capture (editcap converts others)",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/absent.toml --out-dir {d}/s --servers 2",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/rules.toml --out-dir {d}/feed.pcap/s --servers 2",
            "{d}/feed.pcap/s: cannot be made: Not a directory; give another --out-dir",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/rules.toml --out-dir {d}/s --servers 0",
            "--servers 0: must be 1 to 4096, or names",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/rules.toml --servers 2",
            "the following arguments are required: --out-dir",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/rules.toml --out-dir {d}/s --servers 2 --workers 0",
            "workers 0: must be 1 to 256",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/rules.toml --out-dir {d}/s --servers 2 --json {d}/rules.toml",
            "--json {d}/rules.toml: is the same file as {d}/rules.toml; choose another name",
        ),
        (
            "balance {d}/feed.pcap --rules {d}/rules.toml --out-dir {d}/s --servers 2 --secret {d}/short.key",
            "{d}/short.key: mode 0644 lets others at the secret; chmod 600 it, or remove it to get a new one (flows will move)",
        ),
    ],
    "run": [
        (
            "run {d}/absent.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        ("run {d}/feed.pcap", "{d}/feed.pcap:1: byte 0 (0xd4) is not UTF-8 text: give TOML"),
        (
            "run {d}/broken.toml",
            "{d}/broken.toml:1: Expected ']]' at the end of an array declaration: not TOML; mend that line",
        ),
        (
            "run {d}/no-source.toml",
            '{d}/no-source.toml: no [[source]]: add one with interface = "NAME" or file = "FEED.pcapng"',
        ),
        ("run {d}/no-interface.toml", "no interface 'none0' here; there are:"),
        (
            "run {d}/unknown-key.toml",
            '{d}/unknown-key.toml: no [[source]]: add one with interface = "NAME" or file = "FEED.pcapng"',
        ),
        (
            "run {d}/bad-time.toml",
            "{d}/bad-time.toml: duplicates.time '50' is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us",
        ),
        (
            "run {d}/no-capture.toml",
            "{d}/absent.pcap: cannot be opened: No such file or directory; give an existing capture",
        ),
        (
            "run {d}/no-group.toml",
            "{d}/no-group.toml: balance.default_group: 'dpj' is not a [[group]]: add it, or name another one",
        ),
        (
            "run {d}/no-rules.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        (
            "run {d}/report.toml",
            "{d}/no/report.json: the report cannot be written: No such file or directory; give another place",
        ),
    ],
    "status": [
        (
            "status {d}/absent.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give the appliance file, or its control socket",
        ),
        (
            "status {d}/absent.sock",
            "{d}/absent.sock: cannot be read: No such file or directory; give the appliance file, or its control socket",
        ),
        (
            "reload {d}/absent.sock",
            "{d}/absent.sock: cannot be read: No such file or directory; give the appliance file, or its control socket",
        ),
    ],
    "backends": [
        ("backends now", "unrecognized arguments: now"),
        (
            "backends --json {d}/no/r.json",
            "{d}/no/r.json: the report cannot be written: No such file or directory; give another place",
        ),
        ("backend", "argument COMMAND: invalid choice: 'backend'"),
    ],
    "owd": [
        (
            "owd report {d}/absent.pcap",
            "{d}/absent.pcap: cannot be opened: No such file or directory; give an existing capture",
        ),
        (
            "owd report {d}/text.txt",
            "{d}/text.txt: byte 0: this is no capture: it begins with 6e 6f 20 63; give a pcap or pcapng capture (editcap converts others)",
        ),
        ("owd report {d}/nothing.pcap", "{d}/nothing.pcap: is empty; a pcap or pcapng capture is expected"),
        ("owd report {d}/feed.pcap", "no test packet was found: check the captures and --port"),
        ("owd report {d}/feed.pcap --port 0", "--port 0: give 1 to 65535, or any"),
        (
            "owd report {d}/feed.pcap --timeout 10",
            "--timeout '10' is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us",
        ),
        (
            "owd report {d}/feed.pcap --train {d}/absent.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        (
            "owd report {d}/feed.pcap --csv {d}/feed.pcap",
            "--csv {d}/feed.pcap: is the same file as {d}/feed.pcap; choose another name",
        ),
        ("owd report {d}/feed.pcap --ttl 256", "--ttl 256: give 0 to 255"),
        (
            "owd run {d}/absent.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        (
            "owd run {d}/broken.toml",
            "{d}/broken.toml:1: Expected ']]' at the end of an array declaration: not TOML; mend that line",
        ),
        (
            "owd stamp 127.0.0.1 --gap 20 --count 1",
            "--gap '20' is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us",
        ),
    ],
    "reflect": [
        (
            "reflect --port {taken} --address 127.0.0.1 --count 0",
            "UDP port {taken} on 127.0.0.1: Address already in use; end the other program, or give another port",
        ),
        ("reflect --port 70000", "UDP port 70000: give 0 to 65535"),
        (
            "reflect --address 192.0.2.1 --port 0",
            "UDP port 0 on 192.0.2.1: Cannot assign requested address; give an address of this machine",
        ),
        (
            "reflect --address nowhere --port 0",
            "'nowhere' is no IP address: give one as 192.0.2.1 or 2001:db8::1",
        ),
        (
            "reflect --interface none0 --port 0",
            "UDP port 0 on any address through none0: No such device; give an interface that `ip link` lists",
        ),
        (
            "reflect --allow 10.0.0.0/40 --port 0",
            "--allow: '10.0.0.0/40' does not appear to be an IPv4 or IPv6 network; give networks as 192.0.2.0/24 or 2001:db8::/32",
        ),
        (
            "reflect --bound 5 --port 0",
            "--bound '5' is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us",
        ),
        ("reflect --rate -1 --port 0", "rates of -1 and 2000 packets/s: give 1 or more"),
        (
            "reflect --user nobody-here --port 0",
            "--user: there is no user 'nobody-here'; give one that `getent passwd` lists",
        ),
        (
            "reflect --json {d}/no/r.json --port 0 --count 0",
            "{d}/no/r.json: cannot be written: No such file or directory; give another place",
        ),
    ],
    "train": [
        (
            "train check {d}/absent.toml",
            "{d}/absent.toml: cannot be read: No such file or directory; give a file that exists",
        ),
        (
            "train check {d}/broken.toml",
            "{d}/broken.toml:1: Expected ']]' at the end of an array declaration: not TOML; mend that line",
        ),
        ("train check {d}/feed.pcap", "{d}/feed.pcap:1: byte 0 (0xd4) is not UTF-8 text: give TOML"),
        (
            "train check {d}/bad-gap.toml",
            "{d}/bad-gap.toml: gap '10' is not understood: write a number (or a quotient) and a unit, as 1000.3ns or 1/3 us",
        ),
        (
            "train check {d}/bad-address.toml",
            "{d}/bad-address.toml: source is '10.0.0.300': give an IPv4 or IPv6 address",
        ),
        (
            "train check {d}/fast.toml",
            "train: packet 1 would leave 870 ns late, and 1 more: the wire is busy with those before (packet 0 of 90 bytes takes 880 ns, the gap is 10 ns); lengthen the gap or shorten the packets",
        ),
        (
            "train check {d}/train.toml --rate fast",
            "--rate fast: write a number of bit/s, as 1G, 100M or 1000000",
        ),
        (
            "train show {d}/train.toml --plot {d}/no/o.png",
            "{d}/no/o.png: the picture cannot be written: No such file or directory; give another name",
        ),
        (
            "train show {d}/train.toml --csv {d}/no/o.csv",
            "{d}/no/o.csv: cannot be written: No such file or directory; give another place",
        ),
        ("train show {d}/train.toml --first -1", "--first -1: give 0 or more"),
        (
            "train send {d}/train.toml --card none",
            "no card 'none': known are sim, pynq:FILE.bit, uart:DEVICE, linux:INTERFACE,…",
        ),
        ("train send {d}/train.toml --card linux:none0", "no interface 'none0' here; there are:"),
    ],
    "card": [
        (
            "card info --card none",
            "no card 'none': known are sim, pynq:FILE.bit, uart:DEVICE, linux:INTERFACE,…",
        ),
        (
            "card info --card sim",
            "the simulated card is not built: TWINSTAMP_SIM names /nowhere.so, which is missing; run `make hdl` or unset it",
        ),
        ("card info --card linux:none0", "no interface 'none0' here; there are:"),
        (
            "card info --card uart:/dev/none",
            "/dev/none cannot be opened at 3000000 baud: [Errno 2] could not open port /dev/none: [Errno 2] No such file or directory: '/dev/none'; plug it in, or give another device",
        ),
        (
            "card capture --to {d}/o.pcapng",
            "nothing is on the simulated card's wires: give --play CAPTURE or --test-frames N",
        ),
        (
            "card capture --to {d}/o.pcapng --play {d}/feed.pcap --ports 4",
            "--ports 4: a card has ports 0 to 3",
        ),
        (
            "card capture --to {d}/o.pcapng --play {d}/feed.pcap --longest-gap 10",
            "--longest-gap '10' is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us",
        ),
        ("card capture --to {d}/o.pcapng --test-frames 1 --count 0", "--count 0: give at least 1"),
        ("card capture --test-frames 1", "the following arguments are required: --to"),
        (
            "card selftest --card linux:lo",
            "linux:lo: ordinary interfaces have no registers; give sim, pynq:… or uart:… (in Python: open_any_card)",
        ),
    ],
    "clock": [
        ("clock", "the following arguments are required: VERB"),
        (
            "clock status --card none",
            "no card 'none': known are sim, pynq:FILE.bit, uart:DEVICE, linux:INTERFACE,…",
        ),
        (
            "clock receiver /dev/none",
            "receiver /dev/none: cannot be opened: could not open port /dev/none: [Errno 2] No such file or directory: '/dev/none'; plug it in, or give another port",
        ),
        ("clock receiver", "give a PORT to read, or --simulate MODEL with --pty LINK or --tcp HOST:PORT"),
        (
            "clock report {d}/absent.log",
            "{d}/absent.log: cannot be read: No such file or directory; give a log that exists",
        ),
        (
            "clock report {d}/text.txt",
            "{d}/text.txt: is no clock log: its first line is not '# twinstamp clock log 1'; give what --log wrote",
        ),
        ("clock simulate --hours -1", "--hours -1: give 0.01 to 1000"),
        (
            "clock simulate --fault outage",
            "fault 'outage' is not understood: write KIND@START[+DURATION][:VALUE], e.g. outage@3600+1000 or step@1000:2us (seconds from the start)",
        ),
        (
            "clock simulate --fault storm@3600+1000",
            "no fault 'storm': known are outage, outlier, step, pull, missing, double, early, qerr-sign, qerr-late, qerr-lost, leap, message-late, message-corrupt, message-lost, fix-lost, accuracy, host-load",
        ),
        (
            "clock simulate --hours 1 --json {d}/no/r.json",
            "{d}/no/r.json: the report cannot be written: No such file or directory; give another place",
        ),
        (
            "clock configure /dev/none",
            "receiver /dev/none: cannot be opened: could not open port /dev/none: [Errno 2] No such file or directory: '/dev/none'; plug it in, or give another port",
        ),
    ],
    "manual": [
        ("manual", "one of the arguments --man --completion is required"),
        ("manual --completion csh", "argument --completion: invalid choice: 'csh'"),
        (
            "manual --man {d}/feed.pcap/man1",
            "--man {d}/feed.pcap/man1: cannot be written: Not a directory; give another folder",
        ),
    ],
}

_TRAIN = (
    'packets = 3\nsource = "{source}"\ndestination = "10.0.0.2"\nsource_mac = "02:00:00:00:00:01"\n'
    'destination_mac = "02:00:00:00:00:02"\ngap = {{ law = "constant", gap = "{gap}" }}\n'
    'size = {{ law = "constant", bytes = 90 }}\n'
)
_SERVER = '[[group]]\nname = "dpi"\n[[group.server]]\nname = "dpi0"\nfile = "out.pcapng"\n'
_FEED = '[[source]]\nfile = "feed.pcap"\n'
_GROUP = '[balance]\ndefault_group = "dpi"\nsecret_file = "key"\n'


def prepare(folder: Path) -> None:
    """Makes the files that the mistakes are made with."""
    record = bytes(8) + (60).to_bytes(4, "little") * 2 + bytes(60)
    texts = {
        "text.txt": "no capture, and longer than the head of any capture is\n" * 3,
        "broken.toml": "[[source]\nfile = 1\n",
        "rules.toml": '[[rule]]\nprotocol = "udp"\naction = "dns"\n',
        "unknown-key.toml": "[[rule]]\nprotocl = 17\n",
        "bad-port.toml": '[[rule]]\naction = "web"\ndestination_port = 70000\n',
        "short.key": "short",
        "no-source.toml": _GROUP + _SERVER,
        "no-interface.toml": '[[source]]\ninterface = "none0"\n' + _GROUP + _SERVER,
        "bad-time.toml": _FEED + '[duplicates]\ntime = "50"\n' + _GROUP + _SERVER,
        "no-capture.toml": _FEED.replace("feed", "absent") + _GROUP + _SERVER,
        "no-group.toml": _FEED + _GROUP.replace('"dpi"', '"dpj"') + _SERVER,
        "no-rules.toml": _FEED + _GROUP + 'rules = "absent.toml"\n' + _SERVER,
        "report.toml": '[appliance]\nreport = "no/report.json"\n' + _FEED + _GROUP + _SERVER,
        "train.toml": _TRAIN.format(source="10.0.0.1", gap="10us"),
        "fast.toml": _TRAIN.format(source="10.0.0.1", gap="10ns"),
        "bad-gap.toml": _TRAIN.format(source="10.0.0.1", gap="10"),
        "bad-address.toml": _TRAIN.format(source="10.0.0.300", gap="10us"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "short.key").chmod(0o644)
    (folder / "feed.pcap").write_bytes(PCAP_HEADER + record * 10)
    (folder / "cut.pcap").write_bytes(PCAP_HEADER + record * 10 + record[:30])
    (folder / "nothing.pcap").write_bytes(b"")
