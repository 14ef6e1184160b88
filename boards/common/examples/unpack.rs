//! Makes a directory of a table of boards/trees: `unpack TABLE.txt DIRECTORY`.

#[path = "../../trees/tree.rs"]
mod tree;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, table, directory] = &arguments[..] else {
        eprintln!("usage: unpack TABLE.txt DIRECTORY");
        std::process::exit(2);
    };
    for (path, content) in tree::Tree::parse(&std::fs::read_to_string(table)?).files() {
        let target = Path::new(directory).join(path.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().unwrap_or(Path::new(directory)))?;
        std::fs::write(target, content)?;
    }
    Ok(())
}
