//! Reports about the boards in boards/trees.

#[path = "../../../boards/trees/tree.rs"]
mod tree;

use super::*;
use tree::Tree;

/// State in words and warnings of a measurement that nothing happens in.
fn still(tree: &Tree) -> (String, Vec<String>) {
    let board = Board::identify(tree).unwrap();
    let state = board.state(tree);
    (state.to_string(), board.warnings(&state, &state))
}

#[test]
fn quiet_boards_are_trusted() {
    let (state, warnings) = still(&Tree::open("jetson-agx-orin"));
    assert_eq!(state, "2201 MHz, 49.8 °C, not throttled, since it started: over-current or under-voltage");
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn throttling_and_limits_are_named() {
    let (state, warnings) = still(&Tree::open("raspberry-pi-3"));
    assert_eq!(state, "1400 MHz, 62.3 °C, throttled: soft temperature limit, since it started: soft temperature limit");
    assert_eq!(warnings[0], "the board held its clock down (soft temperature limit)");
    assert!(warnings[1].starts_with("governor ondemand moves the clock: echo performance"));
    let (_, warnings) = still(&Tree::open("jetson-xavier-nx"));
    assert_eq!(warnings[0], "the board held its clock down (temperature)");
    assert!(warnings[1].ends_with("above 1420 MHz, less than the hardware can (power mode MODE_15W_4CORE)"));
    assert_eq!(warnings.len(), 2);
    let (state, warnings) = still(&Tree::open("jetson-nano"));
    assert_eq!(state, "1479 MHz, 34.0 °C, not throttled");
    assert_eq!(warnings, ["governor schedutil moves the clock: sudo jetson_clocks"]);
    let (state, _) = still(&Tree::open("raspberry-pi-5"));
    assert_eq!(state, "2400 MHz, 55.1 °C, throttling unknown", "the kernel does not tell, and no vcgencmd here");
}

#[test]
fn what_happens_meanwhile_is_noticed() {
    let mut tree = Tree::open("raspberry-pi-4");
    let board = Board::identify(&tree).unwrap();
    let before = board.state(&tree);
    tree.set("/sys/devices/system/cpu/cpu[0-3]/cpufreq/scaling_cur_freq", "1800000");
    tree.set("/sys/devices/platform/soc/soc:firmware/get_throttled", "50000");
    let warnings = board.warnings(&before, &board.state(&tree));
    assert!(warnings[0].contains("held its clock down (throttled; under-voltage"), "{warnings:?}");
    assert_eq!(warnings[2], "the clock changed: 600 MHz before, 1800 MHz after");

    let mut tree = Tree::open("jetson-agx-orin");
    let board = Board::identify(&tree).unwrap();
    let before = board.state(&tree);
    tree.set("/sys/class/hwmon/hwmon1/oc3_event_cnt", "38");
    let warnings = board.warnings(&before, &board.state(&tree));
    assert_eq!(warnings, ["the board held its clock down (over-current or under-voltage)"]);
}

#[test]
fn other_boards_have_their_name_and_pcs_nothing() {
    let board = Board::identify(&Tree::open("rk3588")).unwrap();
    assert_eq!(board.name, "Radxa ROCK 5B");
    assert_eq!(board.state(&Tree::open("rk3588")).mhz, Some([2400, 2400]), "the big cores'");
    assert!(Board::identify(&Tree::parse("/sys/devices/system/cpu/online: 0-1\n")).is_none());
}
