//! Shell completions and manual pages, generated from the command line's definition:
//!
//!     VITLET_MANUAL=DIR cargo test -p vitlet-cli --bin vitlet manual
//!
//! DIR, an absolute path, becomes what /usr/share is: `man/man1/`, `bash-completion/completions/`,
//! `zsh/site-functions/`, `fish/vendor_completions.d/`. This is a test and no command, so that the generators are in no
//! program; scripts/dist.sh calls it. Without the variable, the tests check the files in a temporary folder.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;

/// A shell, the folder that it reads completions from, and the name that it looks for there.
const SHELLS: [(Shell, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "vitlet"),
    (Shell::Zsh, "zsh/site-functions", "_vitlet"),
    (Shell::Fish, "fish/vendor_completions.d", "vitlet.fish"),
];

const PAGES: &str = "man/man1";

/// Writes everything below `share`.
fn write(share: &Path) {
    for (shell, folder, name) in SHELLS {
        let folder = share.join(folder);
        fs::create_dir_all(&folder).unwrap();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "vitlet", &mut script);
        fs::write(folder.join(name), script).unwrap();
    }
    fs::create_dir_all(share.join(PAGES)).unwrap();
    clap_mangen::generate_to(Cli::command(), share.join(PAGES)).unwrap();
}

/// Names of the commands below `command`, their commands and so on: "vitlet-bench-layerscale".
fn names(command: &clap::Command, name: &str) -> Vec<String> {
    let below = command.get_subcommands().flat_map(|c| names(c, &format!("{name}-{}", c.get_name())));
    [name.to_string()].into_iter().chain(below).collect()
}

/// The only test that writes where VITLET_MANUAL says.
#[test]
fn every_command_has_a_page_and_every_option_is_on_it() {
    let temporary = tempfile::tempdir().unwrap();
    let share = std::env::var_os("VITLET_MANUAL").map_or(temporary.path().to_path_buf(), Into::into);
    write(&share);
    let names = names(&Cli::command(), "vitlet");
    assert!(names.contains(&"vitlet-bench-layerscale".to_string()), "{names:?}");
    for name in &names {
        let page = fs::read_to_string(share.join(PAGES).join(format!("{name}.1"))).unwrap();
        let mut command = Cli::command();
        for part in name.split('-').skip(1) {
            command = command.find_subcommand(part).unwrap().clone();
        }
        for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
            let escaped = option.replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{escaped}")), "{name}: no --{option}");
        }
    }
    assert!(fs::read_to_string(share.join(PAGES).join("vitlet.1")).unwrap().contains("Exit statuses"));
}

/// As bash does when a user presses the tabulator.
#[test]
#[cfg(target_os = "linux")]
fn bash_completes_commands_options_and_values() {
    let share = tempfile::tempdir().unwrap();
    write(share.path());
    let script = share.path().join(SHELLS[0].1).join(SHELLS[0].2);
    let complete = |words: &[&str]| {
        let (last, before) = (words.len() - 1, words.len().saturating_sub(2));
        let call = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _vitlet vitlet '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.join(" "),
            words[last],
            words[before],
        );
        let output = std::process::Command::new("bash").args(["-c", &call]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_string()
    };
    assert_eq!(complete(&["vitlet", "cl"]), "classify");
    assert_eq!(complete(&["vitlet", "classify", "--dig"]), "--digest");
    assert_eq!(complete(&["vitlet", "convert", "--precision", "f"]), "f16 f32");
}
