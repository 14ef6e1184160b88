//! Linear heads over the patches, from a file beside the backbone: DINOv2's for depth (`..._nyu_linear4_head.pth`) and
//! semantic segmentation (`..._ade20k_linear_head.pth`). Their tensors say the task and how many blocks are read, not
//! which classes or the largest depth. Source of the facts: facebookresearch/dinov2, hub/depthers.py,
//! hub/depth/decode_heads.py and eval/segmentation/models/decode_heads/linear_head.py.

use std::path::Path;

use vitlet::config::{Answer, LinearHead as Widths};
use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize, Scale, SizeRule};
use vitlet::{Config, Head, Named, Pooling, Positions};

use crate::checkpoint::Checkpoint;
use crate::diagonal;
use crate::error::Error;
use crate::labels::Given;
use crate::network::{Affine, Layer, Linear, LinearHead, LinearTap, Source};
use crate::options::Options;
use crate::preprocess;

/// The names of both tasks' matrices end so; what stands before them is the head's.
const DEPTH: &str = "conv_depth.weight";
const CLASSES: &str = "conv_seg.weight";

/// Of PyTorch's BatchNorm.
const EPS: f64 = 1e-5;

/// The nearest depth, in metres.
const MIN_DEPTH: f32 = 0.001;

/// Depths of the published heads, which their names tell: rooms (NYU), streets (KITTI).
const BY_NAME: [(&str, f32); 2] = [("nyu", 10.0), ("kitti", 80.0)];

/// Names of classes of the published heads, by their number.
const ADE20K: (&str, &str) = ("ADE20k", include_str!("../../data/ade20k.txt"));
const VOC2012: (&str, &str) = ("VOC2012", include_str!("../../data/voc2012.txt"));

/// A head's file.
pub(crate) struct PatchHead<'p> {
    path: &'p Path,
    file: Checkpoint,
    /// Before the names of the tensors.
    at: String,
    task: Task,
    announcements: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Task {
    Depth,
    Classes,
}

impl<'p> PatchHead<'p> {
    /// Opens `path`, if it holds such a head.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn open(path: &'p Path) -> Result<Option<Self>, Error> {
        let mut announcements = Vec::new();
        let mut file = Checkpoint::open(&[path.to_owned()], false, &mut announcements)?;
        let found = [(DEPTH, Task::Depth), (CLASSES, Task::Classes)].into_iter().find_map(|(end, task)| {
            let at = file.names().find_map(|name| name.strip_suffix(end).map(str::to_owned))?;
            Some((at, task))
        });
        let Some((at, task)) = found else { return Ok(None) };
        file.describe("a linear head over patches");
        Ok(Some(Self { path, file, at, task, announcements }))
    }

    /// Puts the head on the network of `source`, in the place of its classifier.
    ///
    /// # Errors
    /// A head for another width, or for a network that it cannot stand on.
    pub(crate) fn attach(mut self, source: &mut Source, options: &Options) -> Result<(), Error> {
        let network = &mut source.network;
        network.tail.head = None;
        network.config.classes = 0;
        if matches!(network.config.pooling, Pooling::ClsAvg | Pooling::ClsDist) {
            network.config.pooling = Pooling::Cls;
        }
        let (head, widths) = match self.task {
            Task::Depth => self.depth(&network.config, options)?,
            Task::Classes => self.classes(&network.config)?,
        };
        network.config.head = Head::Linear(widths);
        network.linear_head = head;
        if self.task == Task::Classes {
            self.name_classes(&mut source.labels, widths.channels);
        }
        let left = self.file.finish(&options.ignore)?;
        crate::checkpoint::announce_left_out(left, &mut self.announcements);
        let blocks: Vec<String> = widths.taps().iter().map(|tap| (tap + 1).to_string()).collect();
        self.announcements.push(format!("the head reads the patches after blocks {}", blocks.join(", ")));
        prepare(&mut source.network.config, &mut source.preprocess, options, &mut self.announcements);
        source.announcements.append(&mut self.announcements);
        Ok(())
    }

    /// Each patch with the class token beside it, without the last norm; a matrix to bins of depth.
    fn depth(&mut self, c: &Config, options: &Options) -> Result<(LinearHead, Widths), Error> {
        let (channels, count) = self.shape(DEPTH, 2 * c.dim, c)?;
        let blocks = match count {
            4 => spread(c.depth),
            _ => last(c.depth, count),
        };
        let layer = self.file.layer(&format!("{}conv_depth", self.at), &[channels, 2 * c.dim * count, 1, 1], true)?;
        let mut taps: [LinearTap; 4] = Default::default();
        for (k, tap) in taps.iter_mut().enumerate().take(count) {
            tap.patches = columns(&layer, 2 * k * c.dim, c.dim, k == 0);
            tap.class = Some(columns(&layer, (2 * k + 1) * c.dim, c.dim, false));
        }
        let answer = Answer::Depth { min: MIN_DEPTH, max: self.max_depth(options) };
        Ok((LinearHead { taps }, Widths { blocks, count, norm: false, class_token: true, channels, answer }))
    }

    /// Each patch after the last norm and BatchNorm; a matrix to logits.
    fn classes(&mut self, c: &Config) -> Result<(LinearHead, Widths), Error> {
        let (channels, count) = self.shape(CLASSES, c.dim, c)?;
        let inputs = count * c.dim;
        let mut layer = self.file.layer(&format!("{}conv_seg", self.at), &[channels, inputs, 1, 1], true)?;
        let norm = format!("{}bn", self.at);
        if self.file.has(&format!("{norm}.weight")) {
            let mut take = |leaf: &str| self.file.take(&format!("{norm}.{leaf}"), &[inputs]);
            let (weight, bias, mean, variance) =
                (take("weight")?, take("bias")?, take("running_mean")?, take("running_var")?);
            let norm = Affine::batch_norm(&weight, &bias, &mean, &variance, EPS);
            layer.change(move |matrix| diagonal::absorb_input(matrix, &norm));
        }
        let mut taps: [LinearTap; 4] = Default::default();
        for (k, tap) in taps.iter_mut().enumerate().take(count) {
            tap.patches = columns(&layer, k * c.dim, c.dim, k == 0);
        }
        let (blocks, answer) = (last(c.depth, count), Answer::Classes);
        Ok((LinearHead { taps }, Widths { blocks, count, norm: true, class_token: false, channels, answer }))
    }

    /// Rows of the matrix, and how many blocks it reads, of which each has `width` columns.
    fn shape(&self, end: &str, width: usize, c: &Config) -> Result<(usize, usize), Error> {
        let name = format!("{}{end}", self.at);
        let fail = |why: String| Error::file(self.path, format!("{name}: {why}"));
        let shape = self.file.shape(&name).unwrap_or_default();
        let &[rows, columns, 1, 1] = shape else {
            return Err(fail(format!("shape {shape:?}; a convolution of 1 x 1 has four axes")));
        };
        let count = columns / width;
        let most = c.depth.min(4);
        if count * width != columns || !(1..=most).contains(&count) {
            let why = format!(
                "{columns} columns; this backbone is {} wide, so a head over one to four blocks has {width} for each",
                c.dim
            );
            return Err(fail(why));
        }
        Ok((rows, count))
    }

    /// `--max-depth`, else by the file's name, else as the authors' code has it.
    fn max_depth(&mut self, options: &Options) -> f32 {
        if let Some(given) = options.max_depth {
            return given;
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let named = BY_NAME.into_iter().find(|(part, _)| name.contains(part));
        let (metres, why) = match named {
            Some((_, metres)) => (metres, "as the file's name says"),
            None => (10.0, "since nothing says another (NYU); KITTI's heads have --max-depth 80"),
        };
        self.announcements.push(format!("depth in metres up to {metres}, {why}"));
        metres
    }

    /// The published heads' names of classes, where nothing else names as many.
    fn name_classes(&mut self, given: &mut Option<Given>, classes: usize) {
        if given.as_ref().is_some_and(|given| given.is_for(classes)) {
            return;
        }
        *given = None;
        let known = [ADE20K, VOC2012].into_iter().find(|(_, names)| names.lines().count() == classes);
        let Some((whose, names)) = known else { return };
        let why = "the published heads with as many are for them";
        self.announcements.push(format!("{classes} classes have {whose}'s names: {why}; --labels FILE gives others"));
        *given = Some(Given::list(whose, names.lines().map(str::to_owned).collect()));
    }
}

/// Four blocks that are spread over the depth, as the authors choose them.
fn spread(depth: usize) -> [usize; 4] {
    match depth {
        24 => [4, 11, 17, 23],
        _ => std::array::from_fn(|k| (depth * (k + 1) / 4).saturating_sub(1)),
    }
}

/// The last `count` blocks.
fn last(depth: usize, count: usize) -> [usize; 4] {
    std::array::from_fn(|k| if k < count { depth - count + k } else { 0 })
}

/// `n` columns of a matrix from `first` on, with its bias or without one.
fn columns(layer: &Layer, first: usize, n: usize, bias: bool) -> Layer {
    let (layer, rows) = (layer.clone(), layer.n);
    Layer::new(rows, n, move || {
        let whole = layer.load()?;
        let weight = whole.rows().flat_map(|row| &row[first..first + n]).copied().collect();
        let bias = if bias { whole.bias.clone() } else { vec![0.0; rows] };
        Ok(Linear { n: rows, k: n, weight, bias })
    })
}

/// Pictures whole and in their proportions, at the size of the position embedding.
fn prepare(c: &mut Config, p: &mut Preprocess, options: &Options, announcements: &mut Vec<String>) {
    if options.image_size.is_none()
        && let Positions::Resampled { rule, grid: Some((rows, columns)) } = c.positions
    {
        c.positions = Positions::Resampled { rule, grid: None };
        (c.image_height, c.image_width) = (rows * c.patch_height, columns * c.patch_width);
    }
    let (height, width) = (c.image_height as u32, c.image_width as u32);
    let rule = SizeRule { scale: Scale::Larger, multiple: c.patch_height as u32 };
    let follows = options.image_size.is_none() && c.patch_height == c.patch_width && c.positions != Positions::Fixed;
    *p = Preprocess {
        height,
        width,
        resize: Resize::Exact { height, width },
        interpolation: options.interpolation.unwrap_or(Interpolation::Bilinear),
        crop_rounding: CropRounding::Floor,
        crop_pct: None,
        size_rule: follows.then_some(rule),
        ..*p
    };
    announcements.push(format!(
        "for the head over patches, pictures are prepared whole: {width}x{height}, {}",
        p.interpolation.name()
    ));
    if follows {
        announcements.push(preprocess::size_rule_in_words((c.image_height, c.image_width)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_authors() {
        assert_eq!(spread(12), [2, 5, 8, 11]);
        assert_eq!(spread(24), [4, 11, 17, 23]);
        assert_eq!(spread(40), [9, 19, 29, 39]);
        assert_eq!((last(12, 4), last(12, 1)), ([8, 9, 10, 11], [11, 0, 0, 0]));
    }

    #[test]
    fn every_class_has_a_name_of_its_own() {
        for ((_, names), count) in [(ADE20K, 150), (VOC2012, 21)] {
            let mut all: Vec<&str> = names.lines().collect();
            assert!(all.len() == count && all.iter().all(|name| !name.trim().is_empty()));
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count);
        }
    }
}
