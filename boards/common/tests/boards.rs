//! Cores, clocks and threads of boards, from the tables in boards/trees.

#[path = "../../trees/tree.rs"]
mod tree;

use std::ops::ControlFlow;

use tree::Tree;
use vitlet_board::{Core, CpuSet, Cpus, Throttling, compatible, cpu_cooling, cpu_temperature, each_line, model};

#[test]
fn cores_clocks_and_threads() {
    // Table; clusters as core, CPUs and MHz; threads; pinned.
    let expected = [
        ("raspberry-pi-3", "Cortex-A53 0-3 1400", 4, false),
        ("raspberry-pi-4", "Cortex-A72 0-3 1800", 4, false),
        ("raspberry-pi-5", "Cortex-A76 0-3 2400", 4, false),
        ("jetson-nano", "Cortex-A57 0-3 1479", 4, false),
        ("jetson-xavier-nx", "Carmel 0-3 1907", 4, false),
        ("jetson-agx-orin", "Cortex-A78AE 0-11 2201", 8, false),
        ("rk3588", "Cortex-A55 0-3 1800, Cortex-A76 4-7 2400", 4, true),
    ];
    for (name, clusters, threads, pin) in expected {
        let cpus = Cpus::read(&Tree::open(name));
        let described: Vec<String> = cpus
            .clusters()
            .iter()
            .map(|c| format!("{} {} {}", c.core.unwrap(), c.cpus, c.most_khz.unwrap() / 1000))
            .collect();
        assert_eq!(described.join(", "), clusters);
        let plan = cpus.plan();
        assert_eq!((plan.threads, plan.pin), (threads, pin), "{name}");
    }
    let cpus = Cpus::read(&Tree::open("rk3588"));
    assert_eq!(cpus.plan().cpus.to_string(), "4-7", "the big cores");
    let xavier = Cpus::read(&Tree::open("jetson-xavier-nx"));
    assert_eq!((xavier.online().len(), xavier.present), (4, 6));
    let clock = xavier.online()[3].clock.as_ref().unwrap();
    assert_eq!((clock.now_khz, clock.limit_khz, clock.most_khz), (1_190_400, 1_420_800, 1_907_200));
    assert_eq!(clock.governor, "performance");
}

#[test]
fn without_capacities_cores_are_ranked_by_kind_and_clock() {
    let mut tree = Tree::open("rk3588");
    for cpu in 0..8 {
        tree.remove(&format!("/sys/devices/system/cpu/cpu{cpu}/cpu_capacity"));
    }
    // 16 x 1.8 and 32 x 2.4 multiply-adds: less than half as fast.
    assert_eq!(Cpus::read(&tree).plan().cpus.to_string(), "4-7");
    // A Jetson TX2: Denver 2 and Cortex-A57.
    tree.set("/sys/devices/system/cpu/cpu[0-7]/regs/identification/midr_el1", "0x00000000411fd073");
    tree.set("/sys/devices/system/cpu/cpu[1-2]/regs/identification/midr_el1", "0x000000004e0f0030");
    tree.set("/sys/devices/system/cpu/cpu[0-7]/cpufreq/cpuinfo_max_freq", "2035200");
    tree.set("/sys/devices/system/cpu/online", "0-5");
    let cpus = Cpus::read(&tree);
    assert_eq!(cpus.clusters().len(), 2);
    assert_eq!(cpus.plan().threads, 6);
}

#[test]
fn cpuinfo_stands_in_for_identification_registers() {
    let mut tree = Tree::open("raspberry-pi-4");
    let mut info = String::new();
    for cpu in 0..4 {
        tree.remove(&format!("/sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1"));
        info += &format!(
            "processor\\t: {cpu}\\nBogoMIPS\\t: 108.00\\nFeatures\\t: fp asimd evtstrm crc32 cpuid{}\\nCPU implementer\\t: 0x41\\n\
             CPU architecture: 8\\nCPU variant\\t: 0x0\\nCPU part\\t: 0xd08\\nCPU revision\\t: 3\\n\\n",
            " and so on".repeat(40)
        );
    }
    assert!(Cpus::read(&tree).online().iter().all(|cpu| cpu.core.is_none()));
    tree.set("/proc/cpuinfo", &info.replace("\\t", "\t"));
    let cpus = Cpus::read(&tree);
    assert!(cpus.online().iter().all(|cpu| cpu.core.and_then(Core::name) == Some("Cortex-A72")));
}

#[test]
fn nothing_is_known_without_files() {
    let nothing = Tree::parse("");
    let cpus = Cpus::read(&nothing);
    assert!(cpus.online().is_empty() && cpus.clusters().is_empty());
    assert_eq!((cpus.plan().threads, cpus.plan().pin), (1, false));
    assert_eq!(model(&nothing), None);
    assert_eq!(cpu_temperature(&nothing), None);
    assert!(!cpu_cooling(&nothing));
    // A PC: CPUs, but neither a device tree nor cpufreq nor the ARM registers.
    let pc = Tree::parse("/sys/devices/system/cpu/online: 0-1\n/sys/devices/system/cpu/present: 0-1\n");
    assert_eq!(Cpus::read(&pc).plan().threads, 2);
}

#[test]
fn heat_is_the_cpus() {
    assert_eq!(
        cpu_temperature(&Tree::open("jetson-nano")),
        Some(34_000),
        "neither the PMIC's 100 degrees nor the hottest zone"
    );
    assert_eq!(cpu_temperature(&Tree::open("jetson-agx-orin")), Some(49_812));
    assert!(cpu_cooling(&Tree::open("jetson-xavier-nx")));
    assert!(!cpu_cooling(&Tree::open("jetson-nano")), "a fan slows nothing down");
    assert!(!cpu_cooling(&Tree::open("jetson-agx-orin")), "a warm case slows nothing down");
    assert_eq!(Throttling::default().events, 0);
}

#[test]
fn sets_of_cpus_are_written_as_linux_does() {
    for list in ["", "0", "0-3", "0,2,4-6", "63"] {
        assert_eq!(CpuSet::parse(list).to_string(), list);
    }
    assert_eq!(CpuSet::parse("2-5,x,7-").iter().collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(CpuSet::parse("0-100000").len(), 64);
}

#[test]
fn cores_have_names() {
    assert_eq!(Core::from_midr(0x0000_0000_414f_d0b1).name(), Some("Cortex-A76"));
    assert_eq!(Core::from_midr(0x0000_0000_610f_0220).to_string(), "core 0x61/0x022");
}

#[test]
fn lines_are_whole_wherever_the_buffer_ends() {
    let long = "y".repeat(600);
    let mut tree = Tree::parse("");
    tree.set("/lines", &format!("{}\\n{}\\n\\n{long}\\nlast", "a".repeat(250), "b".repeat(250)));
    let mut lengths = Vec::new();
    let end: Option<()> = each_line(&tree, "/lines", |line| {
        lengths.push(line.len());
        ControlFlow::Continue(())
    });
    assert_eq!(end, None);
    lengths.retain(|&len| len > 0);
    assert_eq!(lengths, [250, 250, 256, 256, 88, 4]);
    assert_eq!(
        each_line(&tree, "/lines", |line| if line == "last" {
            ControlFlow::Break(7)
        } else {
            ControlFlow::Continue(())
        }),
        Some(7)
    );
}

#[test]
fn device_trees_name_the_special_first() {
    let first = compatible(&Tree::open("jetson-nano"), |name| Some(name.to_string()));
    assert_eq!(first.as_deref(), Some("nvidia,p3450-0000"));
}
