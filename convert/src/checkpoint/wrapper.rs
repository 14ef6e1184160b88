//! Finds the network among a checkpoint's tensors. Trainers, compilers and libraries save it as a part of something
//! larger, so its names begin with a prefix (`module.`, `timm_model.`, `net.backbone.`, ...). No list has them all: the
//! prefix is where the tensors that the architecture asks for stand together.

use std::collections::BTreeSet;

use super::{Checkpoint, Entry, is_left_out, matches_pattern};
use crate::error::{Error, shown};
use crate::network::Layer;

/// Segments that PyTorch puts inside names: torch.compile, FSDP and activation checkpointing, around any module.
const INFIXES: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// How many names an error lists.
const LISTED: usize = 5;

/// `name` without [`INFIXES`].
pub(super) fn without_infixes(name: &str) -> String {
    name.split('.').filter(|segment| !INFIXES.contains(segment)).collect::<Vec<_>>().join(".")
}

/// The first [`LISTED`] of `names`.
pub(super) fn listed(names: &[impl AsRef<str>]) -> String {
    names.iter().take(LISTED).map(|name| shown(name.as_ref())).collect::<Vec<_>>().join(", ")
}

impl Checkpoint {
    /// Leaves the tensors of the network under the names that it has by itself. An alternative of `anchors` lists names
    /// that stand in every checkpoint of the network; one that ends in a dot stands for any tensor below it. The first
    /// alternative that is found whole decides. Tensors that match `ignore` are not looked at.
    ///
    /// # Errors
    /// The network stands there several times, or with an adapter beside it.
    pub(crate) fn unwrap(
        &mut self,
        anchors: &[Vec<String>],
        ignore: &[String],
        announcements: &mut Vec<String>,
    ) -> Result<(), Error> {
        if let Some(name) = self.names().find(|name| name.contains(".lora_A.")) {
            let why = "a LoRA adapter beside the network; merge it first: in Python, PeftModel.merge_and_unload()";
            return Err(Error::tensor(name, why));
        }
        let Some(prefix) = self.prefix_of(anchors, ignore)?.filter(|prefix| !prefix.is_empty()) else {
            return Ok(());
        };
        let all = std::mem::take(&mut self.tensors);
        for (name, entry) in all {
            match name.strip_prefix(&prefix) {
                Some(short) => self.tensors.insert(short.to_owned(), entry),
                None => self.outside.insert(name, entry),
            };
        }
        announcements.push(format!("the prefix {} of the tensors' names is left out", shown(&prefix)));
        self.prefix = prefix;
        Ok(())
    }

    /// What stands before the names of the network; none if it is not there.
    fn prefix_of(&self, anchors: &[Vec<String>], ignore: &[String]) -> Result<Option<String>, Error> {
        let mut with_first = BTreeSet::new();
        for names in anchors {
            let Some((first, others)) = names.split_first() else { continue };
            let found = self.names().filter_map(|name| name.strip_suffix(first.as_str()));
            let found = found.filter(|prefix| prefix.is_empty() || prefix.ends_with('.'));
            let wanted = |prefix: &&str| {
                let name = format!("{prefix}{first}");
                !ignore.iter().any(|pattern| matches_pattern(pattern, &name))
            };
            let found: Vec<&str> = found.filter(wanted).collect();
            let whole = |prefix: &&str| others.iter().all(|name| self.has_below(&format!("{prefix}{name}")));
            let whole: Vec<&str> = found.iter().copied().filter(|prefix| whole(prefix)).collect();
            with_first.extend(found);
            match whole[..] {
                [] => {}
                // What stands beside a network without a prefix is for `finish` to refuse.
                [one] => return Ok(Some(one.to_owned())),
                _ if whole.contains(&"") => return Ok(Some(String::new())),
                _ => {
                    let why = format!(
                        "the network is in the file {} times, under {}; leave out all but one, as in --ignore '{}*'",
                        whole.len(),
                        listed(&whole),
                        shown(whole[0])
                    );
                    return Err(Error::new("the network", why));
                }
            }
        }
        // A network with gaps: the error will name the first tensor that is missing, with its prefix.
        Ok(with_first.first().filter(|_| with_first.len() == 1).map(|prefix| (*prefix).to_owned()))
    }

    /// Whether a tensor of that name is there, or of a name that begins so if it ends in a dot.
    fn has_below(&self, name: &str) -> bool {
        match name.ends_with('.') {
            true => self.tensors.range(name.to_owned()..).next().is_some_and(|(found, _)| found.starts_with(name)),
            false => self.has(name),
        }
    }

    /// Renames the network's tensors; names for which `rename` has none stay.
    pub(crate) fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) {
        let all = std::mem::take(&mut self.tensors);
        self.tensors = all.into_iter().map(|(name, entry)| (rename(&name).unwrap_or(name), entry)).collect();
    }

    /// Takes the head `[n, k]`: the layer `name`, or, where a wrapper has a head of its own, the one layer of this
    /// shape that is left when all others have been taken or match `ignore`.
    ///
    /// # Errors
    /// As [`Checkpoint::take`]; where there is no head, with the way to convert without one.
    pub(crate) fn head(
        &mut self,
        name: &str,
        n: usize,
        k: usize,
        ignore: &[String],
        announcements: &mut Vec<String>,
    ) -> Result<Layer, Error> {
        if !self.has(&format!("{name}.weight"))
            && let Some(own) = self.layer_left(n, k, ignore)
        {
            announcements.push(format!("the head is {}, the only remaining layer of {n} x {k}", shown(&own)));
            for leaf in ["weight", "bias"] {
                let entry = self.outside.remove(&format!("{own}.{leaf}")).or_else(|| {
                    let short = own.strip_prefix(&self.prefix)?.to_owned();
                    self.tensors.remove(&format!("{short}.{leaf}"))
                });
                entry.and_then(|entry| self.tensors.insert(format!("{name}.{leaf}"), entry));
            }
            let bias = self.has(&format!("{name}.bias"));
            return self.linear(name, n, k, bias);
        }
        let there = self.has(&format!("{name}.weight"));
        let option = if self.description.is_some() { "--num-classes" } else { "num_classes" };
        let layer = self.linear(name, n, k, true);
        let with_cure = |e: Error| Error::new(e.what, format!("{}; {option} 0 is for weights without a head", e.why));
        layer.map_err(|e| if there { e } else { with_cure(e) })
    }

    /// The whole name of the layer of this shape that nobody took and that does not match `ignore`, if there is exactly
    /// one.
    pub(crate) fn layer_left(&self, n: usize, k: usize, ignore: &[String]) -> Option<String> {
        let left =
            |name: &str, entry: &Entry| !entry.taken && entry.tensor.shape == [n, k] && !is_left_out(name, ignore);
        let mut layers = self.entries().filter(|(name, entry)| left(name, entry));
        let found = layers.next().filter(|_| layers.next().is_none())?.0;
        found.strip_suffix(".weight").map(str::to_owned)
    }

    /// All tensors with their whole names.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, &Entry)> {
        let inside = self.tensors.iter().map(|(name, entry)| (format!("{}{name}", self.prefix), entry));
        inside.chain(self.outside.iter().map(|(name, entry)| (name.clone(), entry)))
    }

    /// The whole names of the tensors that nobody took.
    pub(super) fn left(&self) -> impl Iterator<Item = String> {
        self.entries().filter(|(_, entry)| !entry.taken).map(|(name, _)| name)
    }

    /// For the error about the missing tensor `name`: names that are there instead, where that may explain it.
    pub(super) fn others(&self, name: &str) -> String {
        let nothing_fits = self.tensors.values().all(|entry| !entry.taken);
        let layer = name.rsplit_once('.').map_or(name, |(layer, _)| layer);
        let beside = format!("{}{layer}.", self.prefix);
        let explains = |other: &String| nothing_fits || self.outside.contains_key(other) || other.starts_with(&beside);
        let others: Vec<String> = self.left().filter(explains).collect();
        let listed = listed(&others);
        match others.len() {
            0 => String::new(),
            n if n <= LISTED => format!("; the checkpoint has {listed} instead"),
            n => format!("; the checkpoint has {listed} and {} others instead", n - LISTED),
        }
    }
}
