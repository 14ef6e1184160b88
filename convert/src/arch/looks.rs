//! The architecture of a checkpoint by the shapes of its tensors, under timm's names.

use serde_json::{Map, Value};

use super::LISTED;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::options::Options;
use crate::timm::architectures;

/// `vitlet::Config` allows no longer edges of pictures.
const LONGEST_EDGE: usize = 16_384;

/// The kinds of networks whose tensors have different names.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Vit,
    Beit,
    /// Rotary position embedding, as DINOv3 has it.
    Rotary,
    Cait,
    Xcit,
    ResMlp,
    ConvNext,
}

/// What is the same in all networks that share tensors of these shapes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    kind: Kind,
    /// Blocks, of all stages.
    depth: usize,
    /// Channels, of the last stage.
    dim: usize,
    patch: usize,
    class_token: bool,
    distilled: bool,
    registers: usize,
    layerscale: bool,
    pre_norm: bool,
}

/// What a checkpoint's tensors look like.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    shape: Shape,
    /// Rows of the head.
    classes: Option<usize>,
    /// Rows of the tensor that depends on the pictures' size.
    rows: Option<usize>,
}

impl Shape {
    /// An architecture of the table with these arguments on top.
    fn known(name: &str, more: &Map<String, Value>) -> Option<Self> {
        let known = architectures().get(name)?.as_object()?;
        let value = |key: &str| more.get(key).or_else(|| known.get(key)).filter(|v| !v.is_null());
        let len = |key: &str| value(key).and_then(Value::as_u64).map(|n| n as usize);
        let flag = |key: &str, default: bool| value(key).and_then(Value::as_bool).unwrap_or(default);
        let kinds = [("beit", Kind::Beit), ("cait", Kind::Cait), ("xcit", Kind::Xcit), ("resmlp", Kind::ResMlp)];
        let by_name = kinds.into_iter().find(|(start, _)| name.starts_with(start)).map(|(_, kind)| kind);
        let rotary = value("rope_type").map(|_| Kind::Rotary);
        let kind = by_name.or(rotary).unwrap_or(if name.starts_with("convnext") { Kind::ConvNext } else { Kind::Vit });
        let list = |key: &str| -> Vec<usize> {
            let all = value(key).and_then(Value::as_array);
            all.into_iter().flatten().filter_map(|n| n.as_u64().map(|n| n as usize)).collect()
        };
        let attention = !matches!(kind, Kind::ResMlp | Kind::ConvNext);
        let registers = len("reg_tokens").or(len("num_reg_tokens")).unwrap_or(0);
        let always = matches!(kind, Kind::Cait | Kind::Xcit | Kind::ResMlp | Kind::ConvNext);
        Some(Self {
            kind,
            depth: len("depth")
                .or(len("num_blocks"))
                .unwrap_or_else(|| list("depths").into_iter().fold(0, usize::saturating_add)),
            dim: len("embed_dim").or(list("dims").last().copied())?,
            patch: len("patch_size").unwrap_or(if kind == Kind::ConvNext { 4 } else { 16 }),
            class_token: attention && flag("class_token", true),
            distilled: flag("distilled", false),
            registers,
            layerscale: always || value("init_values").is_some(),
            pre_norm: flag("pre_norm", false) || flag("use_pre_transformer_norm", false),
        })
    }

    /// In words.
    fn shown(&self) -> String {
        format!("{} blocks, {} wide, patch {}", self.depth, self.dim, self.patch)
    }

    /// Whether the parts that decide are the same; the rest only orders what is suggested.
    fn fits(&self, other: &Self) -> bool {
        let parts = |s: &Self| (s.kind, s.depth, s.dim, s.patch);
        parts(self) == parts(other)
    }

    /// Rows of the tensor that depends on the pictures' size, for pictures of this one.
    fn rows(&self, (height, width): (usize, usize), name: &str) -> Option<usize> {
        let (h, w) = (height / self.patch, width / self.patch);
        let known = architectures().get(name)?;
        let flag = |key: &str| known[key].as_bool() == Some(true);
        let prefix = self.registers.saturating_add(usize::from(self.class_token) + usize::from(self.distilled));
        let distances = |patches: usize| patches.saturating_mul(2).saturating_sub(1);
        // The numbers are from a file, so they may be of any size.
        match self.kind {
            Kind::Vit if flag("no_embed_class") => Some(h.saturating_mul(w)),
            Kind::Vit => Some(h.saturating_mul(w).saturating_add(prefix)),
            Kind::Cait | Kind::ResMlp => Some(h.saturating_mul(w)),
            // And three for the class token.
            Kind::Beit => Some(distances(h).saturating_mul(distances(w)).saturating_add(3)),
            Kind::Rotary | Kind::Xcit | Kind::ConvNext => None,
        }
    }
}

impl Looks {
    /// `None` where the tensors have other names than timm's.
    pub(super) fn of(checkpoint: &Checkpoint) -> Option<Self> {
        let names: Vec<&str> = checkpoint.names().collect();
        let has = |part: &str| names.iter().any(|name| name.contains(part));
        // The checkpoint may have a prefix before all names.
        let ending = |end: &str| names.iter().copied().filter(|name| name.ends_with(end)).min_by_key(|name| name.len());
        let shape = |end: &str| ending(end).and_then(|name| checkpoint.shape(name));
        let kind = match () {
            () if has("stages.3.") => Kind::ConvNext,
            () if has("linear_tokens.") => Kind::ResMlp,
            () if has("cls_attn_blocks.") => Kind::Xcit,
            () if has("blocks_token_only.") => Kind::Cait,
            () if has("relative_position_bias_table") => Kind::Beit,
            () if has("blocks.0.") && !has("pos_embed") => Kind::Rotary,
            () if has("blocks.0.") => Kind::Vit,
            () => return None,
        };
        let (dim, patch) = match kind {
            Kind::ConvNext => (*shape("stages.3.blocks.0.norm.weight")?.first()?, 4),
            Kind::Xcit => {
                let patch = if has("patch_embed.proj.6.0.weight") { 16 } else { 8 };
                (*shape("blocks.0.norm1.weight")?.first()?, patch)
            }
            _ => match *shape("patch_embed.proj.weight").or(shape("stem.proj.weight"))? {
                [dim, _, patch, _] if patch > 0 => (dim, patch),
                _ => return None,
            },
        };
        let rows = match kind {
            Kind::ResMlp => shape("blocks.0.linear_tokens.weight").and_then(|s| s.first()),
            Kind::Beit => shape("relative_position_bias_table").and_then(|s| s.first()),
            _ => shape("pos_embed").filter(|s| s.len() == 3).and_then(|s| s.get(1)),
        };
        Some(Self {
            shape: Shape {
                kind,
                depth: depth(&names),
                dim,
                patch,
                class_token: ending("cls_token").is_some(),
                distilled: ending("dist_token").is_some(),
                registers: shape("reg_token").and_then(|s| s.get(1)).copied().unwrap_or(0),
                layerscale: has(".gamma") || has(".ls1"),
                pre_norm: has("norm_pre."),
            },
            classes: shape("head.weight").or(shape("head.fc.weight")).and_then(|s| s.first()).copied(),
            rows: rows.copied(),
        })
    }

    /// "look like A, B (12 blocks, ...)", or "have 12 blocks, ...; no supported architecture has these".
    pub(super) fn suggestion(&self) -> String {
        let names = self.fitting();
        match &names[..] {
            [] => format!("have {}; no supported architecture has these", self.shape.shown()),
            names => {
                let more = names.len().saturating_sub(LISTED);
                let more = if more > 0 { format!(" or {more} more") } else { String::new() };
                let listed = names[..names.len().min(LISTED)].join(", ");
                format!("look like {listed}{more} ({})", self.shape.shown())
            }
        }
    }

    /// The architectures whose tensors have these shapes, those that agree in more first.
    fn fitting(&self) -> Vec<&'static str> {
        let all = architectures().keys().filter_map(|name| Some((name.as_str(), Shape::known(name, &Map::new())?)));
        let mut fitting: Vec<_> = all.filter(|(_, shape)| shape.fits(&self.shape)).collect();
        let exact = fitting.iter().any(|(_, shape)| *shape == self.shape);
        fitting.retain(|(_, shape)| !exact || *shape == self.shape);
        let same_rows = |name: &str, shape: &Shape| self.rows.is_some() && shape.rows(native(name), name) == self.rows;
        fitting.sort_by_key(|(name, shape)| !same_rows(name, shape));
        let some_rows = fitting.first().is_some_and(|(name, shape)| same_rows(name, shape));
        fitting.retain(|(name, shape)| !some_rows || same_rows(name, shape));
        fitting.into_iter().map(|(name, _)| name).collect()
    }

    /// Compares the shapes that decide with the architecture's.
    ///
    /// # Errors
    /// Other ones, with the architectures that fit.
    pub(super) fn check(&self, text: &str, name: &str, model_args: &Map<String, Value>) -> Result<(), Error> {
        match Shape::known(name, model_args) {
            Some(known) if !known.fits(&self.shape) => {
                let why = format!("it has {}, but the weights {}", known.shown(), self.suggestion());
                Err(Error::new(format!("--arch {text}"), why))
            }
            _ => Ok(()),
        }
    }

    /// Compares the head with the number of classes.
    ///
    /// # Errors
    /// Another number of rows, with the option that fits. `Checkpoint::head` reports a head that is missing.
    pub(super) fn check_classes(&self, text: &str, classes: usize, options: &Options) -> Result<(), Error> {
        match self.classes {
            _ if options.head.is_some() => Ok(()),
            Some(rows) if rows != classes => {
                let why =
                    format!("{classes} classes, but the head of the weights has {rows}; --num-classes {rows} fits");
                Err(Error::new(format!("--arch {text}"), why))
            }
            _ => Ok(()),
        }
    }

    /// The size (height, width) of pictures that the weights are for; `None` where no tensor depends on it, and in
    /// architectures that take the preparation's.
    ///
    /// # Errors
    /// Neither the architecture's nor `--image-size`, with the one that fits.
    pub(super) fn picture_size(
        &self,
        text: &str,
        name: &str,
        pretrained: &Map<String, Value>,
        model_args: &Map<String, Value>,
        options: &Options,
    ) -> Result<Option<(usize, usize)>, Error> {
        let Some(known) = Shape::known(name, model_args) else { return Ok(None) };
        let (Some(rows), Some(_)) = (self.rows, known.rows((1, 1), name)) else { return Ok(None) };
        let own = [model_args.get("img_size").and_then(size), architectures()[name].get("img_size").and_then(size)];
        let input = pretrained.get("input_size").and_then(size);
        let own = own.into_iter().flatten().next().or(input).unwrap_or((224, 224));
        if let Some(fits) =
            [Some(own), options.image_size].into_iter().flatten().find(|s| known.rows(*s, name) == Some(rows))
        {
            return Ok(Some(fits));
        }
        // The rows are from the file, so they may be as many as a number can say: only real pictures are tried.
        let mut squares = (1..=LONGEST_EDGE / known.patch).map(|side| (side * known.patch, side * known.patch));
        let fits = squares.find(|square| known.rows(*square, name) == Some(rows));
        let cure = match fits {
            Some((height, width)) => format!("--image-size {height}x{width} fits"),
            None => format!(
                "give the size of its pictures with --image-size if they are not square; the weights {}",
                self.suggestion()
            ),
        };
        let why =
            format!("pictures of {}x{}, but the weights' position embedding is for another size; {cure}", own.0, own.1);
        Err(Error::new(format!("--arch {text}"), why))
    }
}

/// Whether the shape of an architecture of the table is known.
#[cfg(test)]
pub(super) fn is_known(name: &str) -> bool {
    Shape::known(name, &Map::new()).is_some()
}

/// The size of pictures of an architecture's default preparation.
fn native(name: &str) -> (usize, usize) {
    let input = super::tags(name).first().and_then(|(_, preparation)| preparation.get("input_size")).and_then(size);
    architectures()[name].get("img_size").and_then(size).or(input).unwrap_or((224, 224))
}

/// `n`, `[height, width]` or `[channels, height, width]`.
fn size(value: &Value) -> Option<(usize, usize)> {
    let side = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    match value.as_array().map(Vec::as_slice) {
        Some([.., height, width]) => side(height).zip(side(width)),
        Some(_) => None,
        None => side(value).map(|n| (n, n)),
    }
}

/// Blocks, of all stages.
fn depth(names: &[&str]) -> usize {
    let block = |name: &&str| -> Option<String> {
        let start = name.find("stages.").or_else(|| {
            let at = name.find("blocks.")?;
            (at == 0 || name.as_bytes()[at - 1] == b'.').then_some(at)
        })?;
        let (before, after) = name[start..].split_once("blocks.")?;
        let number = after.split('.').next().filter(|n| n.parse::<usize>().is_ok())?;
        Some(format!("{before}{number}"))
    };
    names.iter().filter_map(block).collect::<std::collections::BTreeSet<_>>().len()
}
