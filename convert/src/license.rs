//! The licence of the weights: the checkpoint's statement about it, and the meaning of its name.
//!
//! timm has it in config.json, transformers in the front matter of README.md: lines of `key: value` between two lines
//! of `---`. That is text from the internet: no more than [`LONGEST`] bytes are read, and of the YAML only strings and
//! lists of strings.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use vitlet::Config;

/// Front matters are short: in the largest repositories they take a few kilobytes.
const LONGEST: u64 = 64 * 1024;

/// The longest value that is taken.
const LONGEST_VALUE: usize = 300;

/// Licences for research alone whose names do not say so: Apple's for its machine learning research.
const RESEARCH: [&str; 2] = ["apple-amlr", "amlr"];

/// What README.md in `dir` states: its `license`, or where that is `other`, `license_name` and `license_link`.
pub(crate) fn of_readme(dir: &Path) -> Option<String> {
    let path = dir.join("README.md");
    // A pipe would be waited for.
    if !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    // A character may be cut at the end; the front matter ends before.
    let text = String::from_utf8_lossy(&bytes);
    let front = front_matter(&text)?;
    let license = values(front, "license");
    let name = values(front, "license_name").into_iter().next();
    let link = values(front, "license_link").into_iter().next();
    let own = license.is_empty() || license.iter().any(|l| l.eq_ignore_ascii_case("other"));
    match (own, name, link) {
        (true, Some(name), Some(link)) => Some(format!("{name} ({link})")),
        (true, Some(name), None) => Some(name),
        (true, None, Some(link)) => Some(format!("other ({link})")),
        _ => Some(license.join(", ")).filter(|text| !text.is_empty()),
    }
}

/// What stands between the lines of `---` at the beginning.
fn front_matter(text: &str) -> Option<&str> {
    let text = text.trim_start_matches('\u{feff}');
    let text = text.strip_prefix("---")?;
    let (rest, text) = text.split_once('\n')?;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return rest.trim().is_empty().then_some(&text[..at]);
        }
        at += line.len();
    }
    None
}

/// The string at `key`, or the strings of its list.
fn values(front: &str, key: &str) -> Vec<String> {
    let mut lines = front.lines();
    let value = lines.by_ref().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let Some(value) = value.map(str::trim) else { return Vec::new() };
    if let Some(list) = value.strip_prefix('[').and_then(|list| list.split_once(']')) {
        return list.0.split(',').filter_map(scalar).collect();
    }
    if !value.is_empty() && !value.starts_with('#') {
        return scalar(value).into_iter().collect();
    }
    let items = lines.take_while(|line| line.trim().is_empty() || line.trim_start().starts_with('-'));
    items.filter_map(|line| scalar(line.trim_start().strip_prefix('-')?)).collect()
}

/// A string, in quotes or not, without a comment behind it and without control characters.
fn scalar(text: &str) -> Option<String> {
    let text = text.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| text.strip_prefix(quote)?.split_once(quote));
    let text = quoted.map_or_else(|| text.split(" #").next().unwrap_or_default().trim(), |(inner, _)| inner);
    let plain: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_VALUE).collect();
    let nothing = plain.is_empty() || plain == "null" || plain == "~" || plain.starts_with(['|', '>', '&', '*', '{']);
    (!nothing).then_some(plain)
}

/// What the user should know about the licence.
pub(crate) fn announcement(license: Option<&str>) -> Option<String> {
    let Some(license) = license else {
        return Some("no licence is stated: ask who published the weights before you use them or pass them on".into());
    };
    let lower = license.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let has = |word: &str| words.contains(&word);
    if has("nc")
        || lower.contains("noncommercial")
        || lower.contains("non-commercial")
        || lower.contains("non commercial")
    {
        return Some(format!("the licence {license} forbids commercial use"));
    }
    let research = has("research") || RESEARCH.iter().any(|name| lower.contains(name));
    research.then(|| format!("the licence {license} is for research: it most likely forbids commercial use; read it"))
}

/// Which Depth Anything a network looks like, by its width and the blocks that its head reads, and under which licence
/// those weights were published if the checkpoint states none.
pub(crate) fn depth_anything(config: &Config, stated: Option<&str>) -> Option<String> {
    let (name, license) = depth_anything_edition(config.dim, config.depth, config.depth_head()?.taps)?;
    let license = match (stated, license) {
        (Some(_), _) => String::new(),
        (None, CC_BY_NC) => format!(", whose published weights are {CC_BY_NC}: that forbids commercial use"),
        (None, license) => format!(", whose published weights are {license}"),
    };
    Some(format!("the network has the shape of {name}{license}"))
}

const CC_BY_NC: &str = "CC-BY-NC-4.0";

/// Name and licence. Version 1 reads the last four blocks, version 2 blocks that are spread over the network.
fn depth_anything_edition(dim: usize, depth: usize, taps: [usize; 4]) -> Option<(&'static str, &'static str)> {
    const APACHE: &str = "Apache-2.0";
    let last = depth.checked_sub(4).map(|first| [first, first + 1, first + 2, first + 3]);
    Some(match (dim, depth, taps) {
        (384, 12, [2, 5, 8, 11]) => ("Depth Anything V2 Small", APACHE),
        (768, 12, [2, 5, 8, 11]) => ("Depth Anything V2 Base", CC_BY_NC),
        (1024, 24, [4, 11, 17, 23]) => ("Depth Anything V2 Large", CC_BY_NC),
        (384, 12, taps) if Some(taps) == last => ("Depth Anything V1 Small", APACHE),
        (768, 12, taps) if Some(taps) == last => ("Depth Anything V1 Base", APACHE),
        (1024, 24, taps) if Some(taps) == last => ("Depth Anything V1 Large", APACHE),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(readme: &[u8]) -> Option<String> {
        let scratch = tempfile::tempdir().expect("a directory");
        std::fs::write(scratch.path().join("README.md"), readme).expect("written");
        of_readme(scratch.path())
    }

    #[test]
    fn front_matters() {
        for (readme, want) in [
            ("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# Model\n", Some("apache-2.0")),
            ("\u{feff}---\r\ntags: [a]\r\nlicense: 'cc-by-nc-4.0'  # yes\r\n---\r\ntext", Some("cc-by-nc-4.0")),
            ("---\nlicense:\n- mit\n- \"apache-2.0\"\ntags:\n- x\n---\n", Some("mit, apache-2.0")),
            ("---\nlicense: [mit, bsd]\n---\n", Some("mit, bsd")),
            (
                "---\nlicense: other\nlicense_name: dinov3-license\nlicense_link: https://x.y/z\n---\n",
                Some("dinov3-license (https://x.y/z)"),
            ),
            ("---\nlicense: other\n---\n", Some("other")),
            ("---\nlicense: other\nlicense_link: LICENSE\n---\n", Some("other (LICENSE)")),
            ("---\nlicense: null\n---\n", None),
            ("---\ntags: x\n---\nlicense: mit\n", None),
            ("---\nlicense: mit\n", None),
            ("# Model\nlicense: mit\n", None),
            ("---\nmodel:\n  license: mit\n---\n", None),
            ("", None),
        ] {
            assert_eq!(stated(readme.as_bytes()).as_deref(), want, "{readme:?}");
        }
    }

    #[test]
    fn hostile_front_matters_are_bounded() {
        let long = [b"---\nlicense: ".as_slice(), &[b'a'; 5000], b"\n---\n"].concat();
        assert_eq!(stated(&long).expect("a licence").len(), LONGEST_VALUE);
        let endless = [b"---\n".as_slice(), &b"x: y\n".repeat(100_000), b"license: mit\n---\n"].concat();
        assert_eq!(stated(&endless), None);
        assert_eq!(stated(b"---\nlicense: m\x1b[31mit\xff\n---\n").expect("a licence"), "m[31mit\u{fffd}");
    }

    #[test]
    fn depth_anything_is_told_by_its_width_and_its_taps() {
        for (dim, depth, taps, want) in [
            (384, 12, [2, 5, 8, 11], Some(("Depth Anything V2 Small", "Apache-2.0"))),
            (768, 12, [2, 5, 8, 11], Some(("Depth Anything V2 Base", "CC-BY-NC-4.0"))),
            (1024, 24, [4, 11, 17, 23], Some(("Depth Anything V2 Large", "CC-BY-NC-4.0"))),
            (768, 12, [8, 9, 10, 11], Some(("Depth Anything V1 Base", "Apache-2.0"))),
            (1024, 24, [20, 21, 22, 23], Some(("Depth Anything V1 Large", "Apache-2.0"))),
            (36, 5, [0, 2, 3, 4], None),
            (384, 12, [1, 5, 8, 11], None),
        ] {
            assert_eq!(depth_anything_edition(dim, depth, taps), want);
        }
        let widths = vitlet::config::Dpt {
            taps: [4, 11, 17, 23],
            reassembled: [256, 512, 1024, 1024],
            fused: 256,
            hidden: 32,
            metric: true,
            max_depth: 20.0,
            enlarging: vitlet::config::Enlarging::Bicubic,
        };
        let family = vitlet::Family::Vit(vitlet::config::Vit::EMPTY);
        let large = Config { dim: 1024, depth: 24, head: vitlet::Head::Depth(widths), ..Config::of(family) };
        let said = depth_anything(&large, None).expect("said");
        assert!(said.contains("V2 Large") && said.ends_with("CC-BY-NC-4.0: that forbids commercial use"), "{said}");
        let said = depth_anything(&large, Some("apache-2.0")).expect("said");
        assert!(said.ends_with("the shape of Depth Anything V2 Large"), "{said}");
        assert_eq!(depth_anything(&Config::of(family), None), None);
    }

    #[test]
    fn what_forbids_commercial_use_is_said() {
        let said = |license: &str| announcement(Some(license)).unwrap_or_default();
        for license in
            ["cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "fair-noncommercial-research-license", "nvidia-source-code-nc"]
        {
            assert!(said(license).contains("forbids commercial use"), "{license}");
        }
        for license in ["apple-amlr", "intel-research", "other (Research License)"] {
            assert!(said(license).contains("for research"), "{license}");
        }
        for license in ["apache-2.0", "mit", "dinov3-license", "cc-by-4.0", "openrail"] {
            assert_eq!(said(license), "", "{license}");
        }
        assert!(announcement(None).expect("said").contains("no licence is stated"));
    }
}
