//! DINOv2 (Oquab et al. 2023) as its authors save it: a state dict, alone or as a part of a larger network, whose
//! shapes say everything. Its names are nearly timm's; its positions follow another size by a rule of their own. Source
//! of the facts: facebookresearch/dinov2, models/vision_transformer.py and hub/backbones.py.

use vitlet::config::Vit;
use vitlet::{Activation, Config, Family, Positions, Resampling};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::network::{Block, Embedding, Mlp, Network, Source, Tail};
use crate::options::Options;
use crate::position;
use crate::preprocess::Processor;

/// What asks for a tensor, in errors.
const ASKER: &str = "DINOv2";

/// Width of a head in every DINOv2.
const HEAD_DIM: usize = 64;

/// No length of a DINOv2 is larger: the engine takes at most as many tokens.
const MOST: usize = 1 << 16;

/// Height and width of the pictures that the positions of the network whose names begin with `at` are for.
///
/// # Errors
/// As [`network`].
pub(crate) fn native(checkpoint: &Checkpoint, at: &str) -> Result<(usize, usize), Error> {
    let Shape { side, patch, .. } = Shape::of(checkpoint, at)?;
    Ok((side * patch, side * patch))
}

/// The letter that the authors' names have for a network of this width.
pub(crate) fn size_name(dim: usize) -> Option<char> {
    let known = [(384, 's'), (768, 'b'), (1024, 'l'), (1536, 'g')];
    known.into_iter().find(|(width, _)| *width == dim).map(|(_, name)| name)
}

/// What the shapes of the tensors say.
struct Shape {
    dim: usize,
    depth: usize,
    hidden: usize,
    patch: usize,
    /// Patches along each edge of the pictures that the positions are for.
    side: usize,
    registers: usize,
    gated: bool,
}

impl Shape {
    /// Of the network whose names begin with `at`.
    fn of(checkpoint: &Checkpoint, at: &str) -> Result<Self, Error> {
        let len = |name: &str, axis: usize| {
            let name = format!("{at}{name}");
            let len = checkpoint.shape(&name).and_then(|shape| shape.get(axis)).copied();
            // A file may state any length for a tensor without elements.
            let len = len.filter(|n| (1..=MOST).contains(n));
            len.ok_or_else(|| Error::tensor(&name, "missing, or of another shape than DINOv2's"))
        };
        let gated = checkpoint.has(&format!("{at}blocks.0.mlp.w12.weight"));
        let (rows, table) = (len("pos_embed", 1)?, format!("{at}pos_embed"));
        let side = (rows - 1).isqrt();
        if side == 0 || side * side != rows - 1 {
            let why =
                format!("{rows} rows; DINOv2 has one for the class token and a square number of them for patches");
            return Err(Error::tensor(&table, why));
        }
        let dim = len("patch_embed.proj.weight", 0)?;
        if !dim.is_multiple_of(HEAD_DIM) {
            let why = format!("{dim} channels; DINOv2's heads have {HEAD_DIM} each");
            return Err(Error::tensor(&format!("{at}patch_embed.proj.weight"), why));
        }
        let registers = format!("{at}register_tokens");
        let gamma = |i: usize| format!("{at}blocks.{i}.ls1.gamma");
        Ok(Self {
            dim,
            depth: (0..).take_while(|i| checkpoint.has(&gamma(*i))).count(),
            hidden: len(if gated { "blocks.0.mlp.w3.weight" } else { "blocks.0.mlp.fc2.weight" }, 1)?,
            patch: len("patch_embed.proj.weight", 2)?,
            side,
            registers: if checkpoint.has(&registers) { len("register_tokens", 1)? } else { 0 },
            gated,
        })
    }

    fn config(&self, (image_height, image_width): (usize, usize)) -> Config {
        // With registers, the authors' networks resample without the offset and with antialiasing.
        let rule = if self.registers > 0 { Resampling::BicubicAntialias } else { Resampling::BicubicOffset };
        let vit = Vit {
            attention: crate::config::attention(self.dim / HEAD_DIM, HEAD_DIM),
            prefix_tokens: 1 + self.registers,
            ..Vit::EMPTY
        };
        Config {
            image_height,
            image_width,
            patch_height: self.patch,
            patch_width: self.patch,
            dim: self.dim,
            depth: self.depth,
            hidden: self.hidden,
            positions: Positions::Resampled { rule, grid: None },
            norm_eps: 1e-6,
            norm: true,
            activation: if self.gated { Activation::SwiGlu } else { Activation::Gelu },
            ..Config::of(Family::Vit(vit))
        }
    }
}

/// Whether a checkpoint without a config.json is DINOv2 as its authors save it: timm's has no token for masked patches.
/// Names may have a prefix.
pub(crate) fn is_meant(checkpoint: &Checkpoint) -> bool {
    ["mask_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma", "norm.weight"].into_iter().all(|end| {
        checkpoint.names().any(|name| name.strip_suffix(end).is_some_and(|p| p.is_empty() || p.ends_with('.')))
    })
}

/// Reads a checkpoint that [`is_meant`]: features and patch tokens, or the classifier of `--head`.
///
/// # Errors
/// Missing or further tensors.
pub(crate) fn read(mut checkpoint: Checkpoint, options: &Options) -> Result<Source, Error> {
    let mut announcements = Vec::new();
    checkpoint.describe(ASKER);
    let depth = checkpoint.names().filter(|name| name.ends_with(".ls1.gamma")).count();
    let anchors = ["mask_token".to_owned(), "patch_embed.proj.weight".to_owned(), format!("blocks.{}.", depth - 1)];
    checkpoint.unwrap(&[anchors.to_vec()], &options.ignore, &mut announcements)?;
    let shape = Shape::of(&checkpoint, "")?;
    let native = native(&checkpoint, "")?;
    let processor = Processor::usual("dinov2", options.image_size.unwrap_or(native));
    let size = options.image_size.map_or_else(|| processor.output(), Ok)?;
    let mut network = network(&mut checkpoint, "", size, options, &mut announcements)?;
    if let Some(path) = &options.head {
        network.tail.head = Some(crate::head::replace(path, &mut network.config, &mut announcements)?);
    }
    crate::checkpoint::announce_left_out(checkpoint.finish(&options.ignore)?, &mut announcements);
    let preprocess = processor.preprocess(size, options, &mut announcements)?;
    let (Shape { dim, depth, patch, .. }, (height, width)) = (&shape, size);
    announcements.push(format!(
        "the network is {ASKER}, as its tensors say: {depth} blocks, {dim} wide; pictures are prepared as for its \
         classifiers, {width}x{height}"
    ));
    let registers = if shape.registers > 0 { "_reg" } else { "" };
    let name = size_name(*dim).map_or("dinov2".to_owned(), |size| format!("dinov2_vit{size}{patch}{registers}"));
    Ok(Source { network, preprocess, labels: None, name, license: None, url: None, folded_gammas: None, announcements })
}

/// The network whose names begin with `at`, without a head, for pictures of `size` (height, width).
///
/// # Errors
/// Tensors that are missing or of another shape.
pub(crate) fn network(
    checkpoint: &mut Checkpoint,
    at: &str,
    size: (usize, usize),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Network, Error> {
    let shape = Shape::of(checkpoint, at)?;
    let mut config = shape.config(size);
    crate::config::check_size(&config)?;
    let (dim, edge) = (config.dim, shape.side * shape.patch);
    let name = |name: &str| format!("{at}{name}");
    let patch = checkpoint.patch(&name("patch_embed.proj"), dim, (shape.patch, shape.patch), true)?;
    let mut prefix = checkpoint.take(&name("cls_token"), &[1, 1, dim])?;
    let (chosen, table) = (options.image_size.is_some(), name("pos_embed"));
    let positions = position::take(checkpoint, &table, &mut config, chosen, (edge, edge), &mut prefix, announcements)?;
    if shape.registers > 0 {
        // They come without a position.
        prefix.extend(checkpoint.take(&name("register_tokens"), &[1, shape.registers, dim])?);
    }
    let blocks = (0..shape.depth).map(|i| block(checkpoint, &config, &name(&format!("blocks.{i}."))));
    Ok(Network {
        embedding: Embedding { patch, positions: Some(positions), prefix, ..Embedding::default() },
        blocks: blocks.collect::<Result<_, _>>()?,
        tail: Tail { norm: Some(checkpoint.norm(&name("norm"), dim)?), ..Tail::default() },
        ..Network::new(config)
    })
}

fn block(checkpoint: &mut Checkpoint, c: &Config, at: &str) -> Result<Block, Error> {
    let (dim, name) = (c.dim, |name: &str| format!("{at}{name}"));
    let (up, down, width) = match c.activation {
        Activation::SwiGlu => ("mlp.w12", "mlp.w3", 2 * c.hidden),
        _ => ("mlp.fc1", "mlp.fc2", c.hidden),
    };
    Ok(Block {
        norm1: Some(checkpoint.norm(&name("norm1"), dim)?),
        qkv: checkpoint.linear(&name("attn.qkv"), 3 * dim, dim, true)?,
        proj: checkpoint.linear(&name("attn.proj"), dim, dim, true)?,
        gamma1: Some(checkpoint.gamma(&name("ls1.gamma"), dim)?),
        mlp: Mlp {
            norm: Some(checkpoint.norm(&name("norm2"), dim)?),
            up: checkpoint.linear(&name(up), width, dim, true)?,
            down: checkpoint.linear(&name(down), dim, c.hidden, true)?,
            gamma: Some(checkpoint.gamma(&name("ls2.gamma"), dim)?),
        },
        ..Block::default()
    })
}
