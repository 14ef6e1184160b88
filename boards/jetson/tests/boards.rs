//! Jetsons, from the tables in boards/trees.

#[path = "../../trees/tree.rs"]
mod tree;

use tree::Tree;
use vitlet_jetson::{Board, PowerMode, throttling};

#[test]
fn boards_are_told_apart() {
    let boards = [
        ("jetson-nano", "NVIDIA Jetson Nano Developer Kit", "Tegra X1", "32.7.1"),
        ("jetson-xavier-nx", "NVIDIA Jetson Xavier NX Developer Kit", "Xavier", "35.4.1"),
        ("jetson-agx-orin", "NVIDIA Jetson AGX Orin Developer Kit", "Orin", "36.4.3"),
    ];
    for (tree, name, soc, release) in boards {
        let board = Board::identify(&Tree::open(tree)).unwrap();
        assert_eq!((board.name.as_str(), board.soc, board.jetson_linux.as_deref()), (name, soc, Some(release)));
    }
    for tree in ["raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "rk3588"] {
        assert_eq!(Board::identify(&Tree::open(tree)), None);
    }
    let mut other = Tree::open("jetson-nano");
    other.set("/etc/nv_tegra_release", "# Rubbish");
    assert_eq!(Board::identify(&other).unwrap().jetson_linux, None);
}

#[test]
fn power_modes_have_names() {
    let mode = |tree: &Tree| PowerMode::read(tree).map(|mode| (mode.id, mode.name.map(|name| name.to_string())));
    assert_eq!(mode(&Tree::open("jetson-nano")), Some((0, Some("MAXN".to_string()))));
    assert_eq!(mode(&Tree::open("jetson-xavier-nx")), Some((1, Some("MODE_15W_4CORE".to_string()))));
    let mut tree = Tree::open("jetson-agx-orin");
    tree.set("/var/lib/nvpmodel/status", "pmode:0003");
    assert_eq!(mode(&tree), Some((3, Some("MODE_50W".to_string()))));
    tree.set("/var/lib/nvpmodel/status", "pmode:0009");
    assert_eq!(mode(&tree), Some((9, None)), "a mode that the file does not name");
    tree.remove("/etc/nvpmodel.conf");
    assert_eq!(mode(&tree), Some((9, None)));
    assert_eq!(mode(&Tree::open("raspberry-pi-4")), None);
}

#[test]
fn heat_and_current_throttle() {
    assert!(throttling(&Tree::open("jetson-nano")).now.is_empty());
    assert_eq!(throttling(&Tree::open("jetson-xavier-nx")).now, ["temperature"]);
    let orin = throttling(&Tree::open("jetson-agx-orin"));
    assert_eq!((orin.now.len(), orin.since_boot.len(), orin.events), (0, 1, 52));
}
