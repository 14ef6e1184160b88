//! Sessions of one model at the input sizes that its pictures ask for.

use vitlet::Model;
use vitlet::picture::Preprocess;

use crate::error::Result;
use crate::inference::{Compute, Inference, Size};
use crate::model::ModelFile;

/// Sessions that stay open: pictures of one camera have one size, or two where some are upright.
const OPEN: usize = 2;

/// More pixels than so many times those of the file's own size are refused: the network's time and memory would grow
/// without a limit with the ratio of the edges.
const MOST_TIMES: u64 = 8;

/// The size of the network's input for a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InputSize {
    /// The same for all pictures: the one that was asked for, or the file's.
    Fixed(Option<Size>),
    /// By the rule that the file states.
    Follows(Preprocess),
}

impl InputSize {
    /// For pictures of a model, where `asked` comes first.
    pub fn new(model: &Model<'_>, asked: Option<Size>) -> Self {
        let preprocess = model.preprocess();
        if asked.is_none() && preprocess.size_rule.is_some() { Self::Follows(*preprocess) } else { Self::Fixed(asked) }
    }

    /// For a picture of `width` x `height` pixels. Errors say why only.
    pub fn of_picture(&self, width: u32, height: u32) -> Result<Option<Size>, String> {
        let preprocess = match self {
            Self::Fixed(size) => return Ok(*size),
            Self::Follows(preprocess) => preprocess,
        };
        let (height, width) = preprocess.size_for((height, width));
        let (own_width, own_height) = (preprocess.width, preprocess.height);
        let pixels = |width, height| u64::from(width) * u64::from(height);
        if pixels(width, height) > MOST_TIMES * pixels(own_width, own_height) {
            return Err(format!(
                "an input of {width} x {height} pixels, more than {MOST_TIMES} times the {own_width} x {own_height} of the \
                 model file; name a size with --size WxH"
            ));
        }
        Ok(Some((width, height)))
    }
}

/// One model, ready at a few sizes.
pub struct Sessions<'m> {
    file: &'m ModelFile,
    compute: &'m Compute,
    size: InputSize,
    /// The last that was used is at the end.
    open: Vec<(Option<Size>, Inference<'m>)>,
}

impl<'m> Sessions<'m> {
    /// Opens none yet.
    pub fn new(file: &'m ModelFile, compute: &'m Compute, size: InputSize) -> Self {
        Self { file, compute, size, open: Vec::new() }
    }

    /// The session for a picture of `width` x `height` pixels, which is opened if it is not there. Errors say why only.
    pub fn of_picture(&mut self, width: u32, height: u32) -> Result<&mut Inference<'m>, String> {
        let size = self.size.of_picture(width, height)?;
        let session = match self.open.iter().position(|(open, _)| *open == size) {
            Some(at) => self.open.remove(at),
            None => {
                if self.open.len() == OPEN {
                    self.open.remove(0);
                }
                (size, self.start(size, width.max(height))?)
            }
        };
        self.open.push(session);
        Ok(self.open.last_mut().map(|(_, inference)| inference).expect("one was pushed"))
    }

    /// With memory for a picture of that edge: growing it later would take the network's memory twice.
    fn start(&self, size: Option<Size>, edge: u32) -> Result<Inference<'m>, String> {
        Inference::with(self.file, self.compute, self.compute.run(size).max_picture(edge, edge))
            .map_err(|e| e.why(&self.file.name))
    }
}

#[cfg(test)]
mod tests {
    use vitlet::picture::{CropRounding, Interpolation, Resize, Scale, SizeRule};

    use super::*;

    #[test]
    fn long_pictures_are_refused_and_an_asked_size_comes_first() {
        let follows = InputSize::Follows(Preprocess {
            height: 518,
            width: 518,
            resize: Resize::Exact { height: 518, width: 518 },
            interpolation: Interpolation::Bicubic,
            crop_rounding: CropRounding::Floor,
            crop_pct: None,
            size_rule: Some(SizeRule { scale: Scale::Nearer, multiple: 14 }),
            mean: [0.0; 3],
            std: [1.0; 3],
        });
        assert_eq!(follows.of_picture(640, 480), Ok(Some((686, 518))));
        assert_eq!(follows.of_picture(518 * 8, 518), Ok(Some((4144, 518))));
        assert!(follows.of_picture(518 * 9, 518).unwrap_err().contains("--size"));
        assert_eq!(follows.of_picture(1, 4000), Ok(Some((14, 518))));
        assert_eq!(InputSize::Fixed(Some((28, 14))).of_picture(518 * 9, 518), Ok(Some((28, 14))));
    }
}
