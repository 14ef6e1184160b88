//! Depth Anything as its authors save it (`depth_anything_v2_vits.pth`): a state dict alone. The shapes say the
//! encoder; the file says neither the version nor whether the depth is metric, so options do, or the names of the
//! published files. Source of the facts: DepthAnything/Depth-Anything-V2, dpt.py and util/transform.py.

use std::path::Path;

use vitlet::config::{Dpt as Widths, Enlarging};
use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize, Scale, SizeRule};
use vitlet::{Config, Head};

use super::Names;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::network::Source;
use crate::options::Options;
use crate::{preprocess, timm};

/// What asks for a tensor, in errors.
const ASKER: &str = "Depth Anything";

/// The encoder's names begin with it.
const ENCODER: &str = "pretrained.";

/// Where the last convolution before the upsampling is.
const CONV1: &str = "depth_head.scratch.output_conv1";

/// The names of the head's tensors.
const NAMES: Names = Names {
    project: |tap| format!("depth_head.projects.{tap}"),
    resize: |tap| format!("depth_head.resize_layers.{tap}"),
    conv: |tap| format!("depth_head.scratch.layer{}_rn", tap + 1),
    unit: |tap, unit, conv| format!("depth_head.scratch.refinenet{}.resConfUnit{unit}.conv{conv}", tap + 1),
    fuse: |tap| format!("depth_head.scratch.refinenet{}.out_conv", tap + 1),
    end: [CONV1, "depth_head.scratch.output_conv2.0", "depth_head.scratch.output_conv2.2"],
};

/// Which blocks the head reads.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    /// The last four.
    One,
    /// Four that are spread over the depth.
    Two,
}

impl Version {
    const ALL: [(Self, &'static str); 2] = [(Self::One, "depth_anything_v1"), (Self::Two, "depth_anything_v2")];

    fn name(self) -> &'static str {
        if self == Self::One { Self::ALL[0].1 } else { Self::ALL[1].1 }
    }

    /// By `--arch`, or the name of the file.
    fn of(file: &str, options: &Options, announcements: &mut Vec<String>) -> Result<Self, Error> {
        if let Some(given) = options.arch.as_deref() {
            let known = Self::ALL.iter().find(|(_, name)| *name == given);
            let why = "the weights are those of Depth Anything; there are depth_anything_v1 and depth_anything_v2";
            return known.map(|(version, _)| *version).ok_or_else(|| Error::new(format!("--arch {given}"), why));
        }
        let is_first = ["s", "b", "l"].iter().any(|size| file.contains(&format!("depth_anything_vit{size}14")));
        let (version, why) = match (is_first, file.contains("depth_anything_v2")) {
            (true, _) => (Self::One, "as the file's name says"),
            (_, true) => (Self::Two, "as the file's name says"),
            _ => (Self::Two, "since nothing says another; --arch depth_anything_v1 is for the first version"),
        };
        announcements.push(format!("the network is {}, {why}", version.name()));
        Ok(version)
    }

    fn taps(self, depth: usize) -> [usize; 4] {
        match (self, depth) {
            (Self::One, _) => std::array::from_fn(|k| (depth + k).saturating_sub(4)),
            // The authors' choice for the large network.
            (Self::Two, 24) => [4, 11, 17, 23],
            (Self::Two, _) => std::array::from_fn(|k| (depth * (k + 1) / 4).saturating_sub(1)),
        }
    }
}

/// Whether the tensors have the authors' names, with a prefix or without one.
pub(crate) fn is_meant(checkpoint: &Checkpoint) -> bool {
    let has = |end: String| checkpoint.names().any(|name| name.ends_with(&end));
    has(format!("{ENCODER}patch_embed.proj.weight")) && has(format!("{CONV1}.weight"))
}

/// Reads a checkpoint that [`is_meant`], from `src`.
///
/// # Errors
/// Missing or further tensors, and a metric network whose largest depth nothing says.
pub(crate) fn read(mut checkpoint: Checkpoint, src: &Path, options: &Options) -> Result<Source, Error> {
    let mut announcements = Vec::new();
    checkpoint.describe(ASKER);
    let anchors = [format!("{ENCODER}patch_embed.proj.weight"), format!("{CONV1}.weight")];
    checkpoint.unwrap(&[anchors.into()], &options.ignore, &mut announcements)?;
    if options.head.is_some() || options.num_classes.is_some() {
        return Err(Error::new("--head and --num-classes", "Depth Anything has a head of its own, and no classes"));
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    // As a hub serves the first version, the folder has the name.
    let (file, folder) = (name(src), src.parent().map_or(String::new(), name));
    let version = Version::of(&format!("{folder}/{file}"), options, &mut announcements)?;
    let size = options.image_size.map_or_else(|| timm::dinov2::native(&checkpoint, ENCODER), Ok)?;
    let mut network = timm::dinov2::network(&mut checkpoint, ENCODER, size, options, &mut announcements)?;
    let (dim, depth) = (network.config.dim, network.config.depth);
    let widths = widths(&checkpoint, version.taps(depth), max_depth(&file, options, &mut announcements)?)?;
    network.config.head = Head::Depth(widths);
    network.dpt = super::head(&mut checkpoint, &network.config, &widths, &NAMES)?;
    crate::checkpoint::announce_left_out(checkpoint.finish(&options.ignore)?, &mut announcements);
    let blocks = widths.taps.map(|tap| (tap + 1).to_string()).join(", ");
    announcements.push(format!("{depth} blocks, {dim} wide, as its tensors say; the head reads blocks {blocks}"));
    let preprocess = preparation(&network.config, options, &mut announcements)?;
    let size = timm::dinov2::size_name(dim).map_or(String::new(), |size| format!("_vit{size}"));
    Ok(Source {
        network,
        preprocess,
        labels: None,
        name: format!("{}{size}", version.name()),
        license: None,
        url: None,
        folded_gammas: None,
        announcements,
    })
}

/// The largest depth in metres; none where the depth is relative.
fn max_depth(file: &str, options: &Options, announcements: &mut Vec<String>) -> Result<Option<f32>, Error> {
    let by_name = [("hypersim", 20.0), ("vkitti", 80.0)];
    let named = by_name.into_iter().find(|(part, _)| file.contains(part));
    match (options.max_depth, named) {
        (Some(given), _) => Ok(Some(given)),
        (None, Some((_, metres))) => {
            announcements.push(format!("depth in metres up to {metres}, as the file's name says"));
            Ok(Some(metres))
        }
        (None, None) if file.contains("metric") => {
            let why = "the file's name says metric, and nothing says up to which depth; the published networks have 20 \
                       (indoor, Hypersim) and 80 (outdoor, VKITTI)";
            Err(Error::new("--max-depth", why))
        }
        (None, None) => {
            announcements.push(
                "depth is relative (an inverse), since nothing says another; --max-depth METRES is for metric networks"
                    .to_owned(),
            );
            Ok(None)
        }
    }
}

/// The head's widths, from its tensors.
fn widths(checkpoint: &Checkpoint, taps: [usize; 4], max_depth: Option<f32>) -> Result<Widths, Error> {
    let rows = |name: String| {
        let name = format!("{name}.weight");
        let rows = checkpoint.shape(&name).and_then(|shape| shape.first().copied());
        rows.ok_or_else(|| Error::tensor(&name, format!("missing; {ASKER} asks for it")))
    };
    let mut reassembled = [0; 4];
    for (tap, n) in reassembled.iter_mut().enumerate() {
        *n = rows((NAMES.project)(tap))?;
    }
    Ok(Widths {
        taps,
        reassembled,
        fused: rows((NAMES.conv)(0))?,
        hidden: rows(NAMES.end[1].to_owned())?,
        metric: max_depth.is_some(),
        max_depth: max_depth.unwrap_or(1.0),
        enlarging: Enlarging::BilinearAligned,
    })
}

/// As `DepthAnythingV2.image2tensor` prepares a picture.
fn preparation(c: &Config, options: &Options, announcements: &mut Vec<String>) -> Result<Preprocess, Error> {
    let (height, width) = (c.image_height as u32, c.image_width as u32);
    let size_rule = SizeRule { scale: Scale::Larger, multiple: c.patch_height as u32 };
    let size_rule = options.image_size.is_none().then_some(size_rule);
    let default = preprocess::imagenet((c.image_height, c.image_width), options)?;
    if options.crop_pct.is_some() {
        return Ok(default);
    }
    let interpolation = options.interpolation.unwrap_or(Interpolation::BicubicOpencv);
    if interpolation == Interpolation::BicubicOpencv {
        announcements.push(
            "the authors' code resizes pictures in floating point, vitlet in bytes: pixels differ by about half a level, and \
             by more where the filter goes beyond black or white"
                .to_owned(),
        );
    }
    if size_rule.is_some() {
        announcements.push(preprocess::size_rule_in_words((c.image_height, c.image_width)));
    }
    let resize = Resize::Exact { height, width };
    Ok(Preprocess { resize, interpolation, crop_rounding: CropRounding::Floor, crop_pct: None, size_rule, ..default })
}
