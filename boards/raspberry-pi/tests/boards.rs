//! Raspberry Pis, from the tables in boards/trees.

#[path = "../../trees/tree.rs"]
mod tree;

use tree::Tree;
use vitlet_raspberry_pi::{Board, Throttled, under_voltage};

#[test]
fn boards_are_told_apart() {
    let boards = [
        ("raspberry-pi-3", "Raspberry Pi 3 Model B Plus Rev 1.3", "BCM2837"),
        ("raspberry-pi-4", "Raspberry Pi 4 Model B Rev 1.4", "BCM2711"),
        ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0", "BCM2712"),
    ];
    for (tree, name, soc) in boards {
        let board = Board::identify(&Tree::open(tree)).unwrap();
        assert_eq!((board.name.as_str(), board.soc), (name, soc));
    }
    for tree in ["jetson-nano", "jetson-xavier-nx", "jetson-agx-orin", "rk3588"] {
        assert_eq!(Board::identify(&Tree::open(tree)), None);
    }
    let mut clone = Tree::open("raspberry-pi-4");
    clone.set("/sys/firmware/devicetree/base/compatible", "somebody,else\\0brcm,bcm2711\\0");
    assert_eq!(Board::identify(&clone), None, "another maker's board with the same chip");
}

#[test]
fn throttling_is_what_the_firmware_says() {
    let mut tree = Tree::open("raspberry-pi-3");
    let throttling = Throttled::read(&tree).unwrap().throttling();
    assert_eq!(throttling.now, ["soft temperature limit"]);
    assert_eq!(throttling.since_boot, ["soft temperature limit"]);
    tree.set("/sys/devices/platform/soc/soc:firmware/get_throttled", "50005");
    let throttling = Throttled::read(&tree).unwrap().throttling();
    assert!(
        throttling.now.len() == 2 && throttling.now[0].contains("power supply") && throttling.now[1] == "throttled"
    );
    assert_eq!(throttling.since_boot.len(), 2);
    assert_eq!(Throttled::read(&Tree::open("raspberry-pi-4")), Some(Throttled(0)));
    assert!(Throttled(0).throttling().now.is_empty());
}

#[test]
fn a_kernel_without_the_bits_leaves_vcgencmd_and_the_alarm() {
    let mut tree = Tree::open("raspberry-pi-5");
    assert_eq!(Throttled::read(&tree), None);
    assert_eq!(Throttled::parse("throttled=0xe0008\n"), Some(Throttled(0xe_0008)));
    assert_eq!(Throttled::parse("VCHI initialization failed"), None);
    assert_eq!(under_voltage(&tree), Some(false));
    tree.set("/sys/class/hwmon/hwmon3/in0_lcrit_alarm", "1");
    assert_eq!(under_voltage(&tree), Some(true));
    tree.remove("/sys/class/hwmon/hwmon3/name");
    assert_eq!(under_voltage(&tree), None);
    tree.set("/sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled", "4");
    assert_eq!(Throttled::read(&tree), Some(Throttled(4)));
}
