//! From the hubs' descriptions of image preparation to the engine's: timm's `pretrained_cfg` and transformers'
//! `preprocessor_config.json`. The arithmetic itself is the engine's.

use std::path::Path;

use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize};

use crate::error::Error;
use crate::json::Object;
use crate::labels;
use crate::options::Options;

/// The mean and standard deviation of ImageNet, timm's default.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const HALF: ([f64; 3], [f64; 3]) = ([0.5; 3], [0.5; 3]);
const CLIP: ([f64; 3], [f64; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]);

/// timm's evaluation transform (`transforms_imagenet_eval`) for pictures of `size` (height, width).
///
/// # Errors
/// An interpolation or crop mode that the engine does not have.
pub(crate) fn timm(cfg: &Object, size: (usize, usize), options: &Options) -> Result<Preprocess, Error> {
    let interpolation = match options.interpolation {
        Some(chosen) => chosen,
        None => match cfg.text("interpolation")?.unwrap_or("bicubic") {
            "bicubic" => Interpolation::Bicubic,
            "bilinear" => Interpolation::Bilinear,
            other => return Err(cfg.error("interpolation", unknown_interpolation(other))),
        },
    };
    let pct = options.crop_pct.or(cfg.number("crop_pct")?.filter(|p| *p != 0.0)).unwrap_or(0.875);
    let (height, width) = enlarged(size, pct)?;
    let resize = match cfg.text("crop_mode")?.unwrap_or("center") {
        "squash" => Resize::Exact { height, width },
        "border" => Resize::Contain { height, width },
        "center" if height == width => Resize::ShorterEdge(height),
        "center" => Resize::Cover { height, width },
        other => return Err(cfg.error("crop_mode", format!("{other} is unknown; center, squash and border are"))),
    };
    let mean = options.mean.or(cfg.rgb("mean")?.map(narrow)).unwrap_or(narrow(IMAGENET.0));
    let std = options.std.or(cfg.rgb("std")?.map(narrow)).unwrap_or(narrow(IMAGENET.1));
    let preprocess = Preprocess {
        height: size.0 as u32,
        width: size.1 as u32,
        resize,
        interpolation,
        crop_rounding: CropRounding::Even,
        mean,
        std,
    };
    check(preprocess)
}

/// ImageNet's evaluation transform for pictures of `size` (height, width), with what the user chose otherwise.
///
/// # Errors
/// As [`timm`].
pub(crate) fn imagenet(size: (usize, usize), options: &Options) -> Result<Preprocess, Error> {
    timm(&Object::new("", serde_json::Map::new()), size, options)
}

/// What a checkpoint directory says about pictures, for a network of `size` (height, width), and the labels that it has.
///
/// # Errors
/// A directory that is neither timm's nor transformers', or a preparation that is not run.
pub(crate) fn from_dir(
    dir: &Path,
    size: (usize, usize),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<(Preprocess, Option<Vec<String>>), Error> {
    let (config, processor) = (dir.join("config.json"), dir.join("preprocessor_config.json"));
    let json = if config.is_file() { Some(Object::read(&config)?) } else { None };
    if processor.is_file() {
        let processor = Object::read(&processor)?;
        let preprocess = Processor::new(&processor)?.preprocess(size, options, announcements)?;
        return Ok((preprocess, json.as_ref().and_then(labels::transformers)));
    }
    match json {
        Some(json) if json.value("architecture").is_some() => {
            let pretrained = json.object("pretrained_cfg");
            let labels = labels::timm(&json).or_else(|| labels::timm(&pretrained));
            Ok((timm(&pretrained, size, options)?, labels))
        }
        _ => Err(Error::file(
            dir,
            "no preprocessor_config.json, and no config.json of timm's; it says nothing of pictures",
        )),
    }
}

/// A preparation that is complete already, with what the user chose otherwise.
///
/// # Errors
/// A crop percentage or a mean that is none.
pub(crate) fn overridden(mut preprocess: Preprocess, options: &Options) -> Result<Preprocess, Error> {
    if let Some(pct) = options.crop_pct {
        let (height, width) = enlarged((preprocess.height as usize, preprocess.width as usize), pct)?;
        preprocess.resize = Resize::Cover { height, width };
    }
    preprocess.interpolation = options.interpolation.unwrap_or(preprocess.interpolation);
    preprocess.mean = options.mean.unwrap_or(preprocess.mean);
    preprocess.std = options.std.unwrap_or(preprocess.std);
    check(preprocess)
}

/// What `preprocessor_config.json` says, with the defaults of the processor that it names.
pub(crate) struct Processor<'j> {
    json: &'j Object,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Vit,
    Deit,
    /// BitImageProcessor and CLIPImageProcessor: a bare size is the shortest edge.
    Bit,
    Beit,
    Dinov3,
    /// Below 384 pixels the shortest edge is made larger by `crop_pct` and the middle is cut out; from there on the picture is stretched.
    ConvNext,
}

impl<'j> Processor<'j> {
    /// # Errors
    /// A processor that prepares pictures in some other way.
    pub(crate) fn new(json: &'j Object) -> Result<Self, Error> {
        let name = json.text("image_processor_type")?.or(json.text("feature_extractor_type")?).unwrap_or("ViT");
        let stems = [
            ("ViT", Kind::Vit),
            ("DeiT", Kind::Deit),
            ("Bit", Kind::Bit),
            ("CLIP", Kind::Bit),
            ("Beit", Kind::Beit),
            ("DINOv3", Kind::Dinov3),
            ("ConvNext", Kind::ConvNext),
        ];
        match stems.iter().find(|(stem, _)| name.starts_with(stem)) {
            Some(&(_, kind)) => Ok(Self { json, kind }),
            None => {
                let why =
                    format!("{name} is unknown; ViT, DeiT, Bit, CLIP, Beit, DINOv3 and ConvNext image processors are");
                Err(json.error("image_processor_type", why))
            }
        }
    }

    fn crops(&self) -> Result<bool, Error> {
        Ok(self.json.flag("do_center_crop")?.unwrap_or(matches!(self.kind, Kind::Deit | Kind::Bit)))
    }

    /// `{"height", "width"}`, `{"shortest_edge"}` or a bare number; the processor's default where there is none.
    fn resize(&self) -> Result<Resize, Error> {
        let size = self.json.object("size");
        let bare = self.json.value("size").is_some_and(|v| !v.is_object());
        let edge = if bare { self.json.size("size")? } else { None };
        if self.kind == Kind::ConvNext {
            return Ok(match self.convnext_edge()? {
                edge @ 384.. => Resize::Exact { height: edge as u32, width: edge as u32 },
                edge => {
                    let pct = self.json.number("crop_pct")?.unwrap_or(224.0 / 256.0);
                    Resize::ShorterEdge(enlarged((edge, edge), pct)?.0)
                }
            });
        }
        Ok(match (edge, size.len("shortest_edge")?, size.len("height")?.zip(size.len("width")?)) {
            (Some((h, _)), _, _) if self.kind == Kind::Bit => Resize::ShorterEdge(h as u32),
            (Some((h, w)), _, _) | (_, _, Some((h, w))) => Resize::Exact { height: h as u32, width: w as u32 },
            (_, Some(edge), _) => Resize::ShorterEdge(edge as u32),
            _ if self.json.value("size").is_some() => {
                return Err(self.json.error("size", "neither height and width nor shortest_edge"));
            }
            _ => match self.kind {
                Kind::Vit | Kind::Beit | Kind::Dinov3 => Resize::Exact { height: 224, width: 224 },
                Kind::Deit => Resize::Exact { height: 256, width: 256 },
                Kind::Bit => Resize::ShorterEdge(224),
                Kind::ConvNext => Resize::Exact { height: 384, width: 384 },
            },
        })
    }

    /// ConvNeXt's `size`: the edge of what comes out.
    fn convnext_edge(&self) -> Result<usize, Error> {
        let size = self.json.object("size");
        match self.json.value("size") {
            None => Ok(384),
            Some(size) if !size.is_object() => Ok(self.json.size("size")?.map_or(384, |(edge, _)| edge)),
            Some(_) => size.len("shortest_edge")?.ok_or_else(|| {
                self.json.error("size", "no shortest_edge, which is what a ConvNext image processor takes")
            }),
        }
    }

    /// The size (height, width) of what comes out.
    ///
    /// # Errors
    /// Sizes that are not sizes.
    pub(crate) fn output(&self) -> Result<(usize, usize), Error> {
        if self.crops()? {
            let crop = self.json.object("crop_size");
            return Ok(match crop.len("height")?.zip(crop.len("width")?) {
                Some(size) => size,
                None if self.json.value("crop_size").is_some() => self.json.size("crop_size")?.unwrap_or((224, 224)),
                None => (224, 224),
            });
        }
        if self.kind == Kind::ConvNext {
            return self.convnext_edge().map(|edge| (edge, edge));
        }
        Ok(match self.resize()? {
            Resize::ShorterEdge(edge) => (edge as usize, edge as usize),
            Resize::Exact { height, width } | Resize::Cover { height, width } | Resize::Contain { height, width } => {
                (height as usize, width as usize)
            }
        })
    }

    /// The preparation for pictures of `size` (height, width): that of [`Processor::output`], or another whose resize
    /// keeps its proportion to it.
    ///
    /// # Errors
    /// A resampling filter that the engine does not have.
    pub(crate) fn preprocess(
        &self,
        size: (usize, usize),
        options: &Options,
        announcements: &mut Vec<String>,
    ) -> Result<Preprocess, Error> {
        let json = self.json;
        if self.kind == Kind::Dinov3 {
            announcements.push(
                "DINOv3's processor resizes in floating point, vitlet in bytes: pixels differ by half a level"
                    .to_owned(),
            );
        }
        let own = self.output()?;
        let scaled = |n: u32, own: usize, new: usize| (n as usize * new / own.max(1)) as u32;
        let resize = match (self.resize()?, options.crop_pct) {
            (_, Some(pct)) => {
                let (height, width) = enlarged(size, pct)?;
                Resize::Cover { height, width }
            }
            _ if json.flag("do_resize")? == Some(false) => {
                announcements.push(format!(
                    "preprocessor_config.json has do_resize false: pictures of another size than {}x{} are resized to it",
                    size.0, size.1
                ));
                Resize::Exact { height: size.0 as u32, width: size.1 as u32 }
            }
            (Resize::Exact { height, width }, _) => {
                Resize::Exact { height: scaled(height, own.0, size.0), width: scaled(width, own.1, size.1) }
            }
            (Resize::ShorterEdge(edge), _) if size.0 == size.1 => Resize::ShorterEdge(scaled(edge, own.0, size.0)),
            (Resize::ShorterEdge(edge), _) => {
                Resize::Cover { height: scaled(edge, own.0, size.0), width: scaled(edge, own.1, size.1) }
            }
            (other, _) => other,
        };
        let (mean, std) = self.normalization(options)?;
        check(Preprocess {
            height: size.0 as u32,
            width: size.1 as u32,
            resize,
            interpolation: self.interpolation(options)?,
            crop_rounding: CropRounding::Floor,
            mean,
            std,
        })
    }

    fn interpolation(&self, options: &Options) -> Result<Interpolation, Error> {
        let default = if matches!(self.kind, Kind::Vit | Kind::Dinov3) { 2 } else { 3 };
        match (options.interpolation, self.json.len("resample")?.unwrap_or(default)) {
            (Some(chosen), _) => Ok(chosen),
            (None, 2) => Ok(Interpolation::Bilinear),
            (None, 3) => Ok(Interpolation::Bicubic),
            (None, n) => {
                let name = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"].get(n).unwrap_or(&"?");
                Err(self.json.error("resample", unknown_interpolation(name)))
            }
        }
    }

    /// Mean and standard deviation for pixels in [0, 1], whatever the processor rescales them to.
    fn normalization(&self, options: &Options) -> Result<([f32; 3], [f32; 3]), Error> {
        let json = self.json;
        let default = match self.kind {
            Kind::Vit | Kind::Deit | Kind::Beit => HALF,
            Kind::Bit => CLIP,
            Kind::Dinov3 | Kind::ConvNext => IMAGENET,
        };
        let (mut mean, mut std) =
            (json.rgb("image_mean")?.unwrap_or(default.0), json.rgb("image_std")?.unwrap_or(default.1));
        if json.flag("do_normalize")? == Some(false) {
            (mean, std) = ([0.0; 3], [1.0; 3]);
        }
        let white = match json.flag("do_rescale")? {
            Some(false) => 255.0,
            _ => json.number("rescale_factor")?.map_or(1.0, |f| f * 255.0),
        };
        if (white - 1.0f64).abs() > 1e-6 {
            mean.iter_mut().chain(&mut std).for_each(|x| *x /= white);
        }
        Ok((options.mean.unwrap_or(narrow(mean)), options.std.unwrap_or(narrow(std))))
    }
}

/// timm's `floor(x / crop_pct)` of height and width.
fn enlarged(size: (usize, usize), pct: f64) -> Result<(u32, u32), Error> {
    if !(0.01..=1.0).contains(&pct) {
        return Err(Error::new("crop-pct", format!("{pct} is not between 0.01 and 1")));
    }
    let floor = |n: usize| (n as f64 / pct).floor() as u32;
    Ok((floor(size.0), floor(size.1)))
}

fn narrow(rgb: [f64; 3]) -> [f32; 3] {
    rgb.map(|x| x as f32)
}

fn unknown_interpolation(name: &str) -> String {
    format!("{name} is not run; choose --interpolation bicubic or bilinear")
}

fn check(preprocess: Preprocess) -> Result<Preprocess, Error> {
    let usable = |x: &f32| x.is_finite();
    if !preprocess.mean.iter().all(usable) || !preprocess.std.iter().all(|s| usable(s) && *s != 0.0) {
        return Err(Error::new("mean and std", "they must be finite, and std not zero"));
    }
    Ok(preprocess)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        match serde_json::from_str(json).expect("JSON") {
            serde_json::Value::Object(map) => Object::new("", map),
            other => panic!("{other} is not an object"),
        }
    }

    fn timm_resize(json: &str, size: (usize, usize)) -> Resize {
        timm(&object(json), size, &Options::default()).expect("a preparation").resize
    }

    fn processor(json: &str) -> ((usize, usize), Preprocess) {
        let json = object(json);
        let processor = Processor::new(&json).expect("a processor");
        let size = processor.output().expect("a size");
        (size, processor.preprocess(size, &Options::default(), &mut Vec::new()).expect("a preparation"))
    }

    #[test]
    fn timm_crop_modes() {
        assert_eq!(timm_resize("{}", (224, 224)), Resize::ShorterEdge(256)); // floor(224 / 0.875)
        assert_eq!(timm_resize(r#"{"crop_pct": 0.9}"#, (224, 224)), Resize::ShorterEdge(248)); // 248.88
        assert_eq!(timm_resize(r#"{"crop_pct": 1.0}"#, (48, 32)), Resize::Cover { height: 48, width: 32 });
        let squash = Resize::Exact { height: 378, width: 378 };
        assert_eq!(timm_resize(r#"{"crop_pct": 1, "crop_mode": "squash"}"#, (378, 378)), squash);
        let border = Resize::Contain { height: 235, width: 235 };
        assert_eq!(timm_resize(r#"{"crop_pct": 0.95, "crop_mode": "border"}"#, (224, 224)), border);
        for bad in [
            r#"{"crop_mode": "tile"}"#,
            r#"{"interpolation": "lanczos"}"#,
            r#"{"crop_pct": 1.5}"#,
            r#"{"std": [1, 0, 1]}"#,
        ] {
            assert!(timm(&object(bad), (224, 224), &Options::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_win() {
        let options = Options {
            mean: Some([0.1; 3]),
            std: Some([0.2; 3]),
            crop_pct: Some(0.5),
            interpolation: Some(Interpolation::Bilinear),
            ..Options::default()
        };
        let cfg = object(r#"{"mean": [0.5, 0.5, 0.5], "interpolation": "lanczos", "crop_pct": 0.9}"#);
        let p = timm(&cfg, (32, 32), &options).expect("a preparation");
        assert_eq!(
            (p.mean, p.std, p.resize, p.interpolation),
            ([0.1; 3], [0.2; 3], Resize::ShorterEdge(64), Interpolation::Bilinear)
        );
        let again = overridden(p, &Options { crop_pct: Some(1.0), ..Options::default() }).expect("a preparation");
        assert_eq!(again.resize, Resize::Cover { height: 32, width: 32 });
    }

    #[test]
    fn dinov2_as_the_hub_serves_it() {
        let (size, p) = processor(
            r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "do_normalize": true, "do_rescale": true,
                "do_resize": true, "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "BitImageProcessor",
                "image_std": [0.229, 0.224, 0.225], "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 256}}"#,
        );
        assert_eq!((size, p.resize, p.interpolation), ((224, 224), Resize::ShorterEdge(256), Interpolation::Bicubic));
        assert_eq!(
            (p.mean, p.std, p.crop_rounding),
            ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], CropRounding::Floor)
        );
    }

    #[test]
    fn vit_and_deit_as_the_hub_serves_them() {
        let old = r#"{"do_normalize": true, "do_resize": true, "feature_extractor_type": "ViTFeatureExtractor",
                      "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2, "size": 384}"#;
        let (size, p) = processor(old);
        assert_eq!((size, p.resize), ((384, 384), Resize::Exact { height: 384, width: 384 }));
        assert_eq!((p.interpolation, p.mean, p.std), (Interpolation::Bilinear, [0.5; 3], [0.5; 3]));
        let deit = r#"{"crop_size": 224, "do_center_crop": true, "feature_extractor_type": "DeiTFeatureExtractor", "resample": 3, "size": 256}"#;
        let (size, p) = processor(deit);
        assert_eq!((size, p.resize), ((224, 224), Resize::Exact { height: 256, width: 256 }));
        let (size, p) = processor(r#"{"image_processor_type": "CLIPImageProcessor", "size": 240, "crop_size": 224}"#);
        assert_eq!((size, p.resize), ((224, 224), Resize::ShorterEdge(240)));
        assert!(Processor::new(&object(r#"{"image_processor_type": "SegformerImageProcessor"}"#)).is_err());
    }

    #[test]
    fn convnext_as_the_hub_serves_it() {
        let json = |size: &str| {
            format!(r#"{{"image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "size": {size}}}"#)
        };
        let (size, p) = processor(&json(r#"{"shortest_edge": 224}"#));
        assert_eq!((size, p.resize, p.interpolation), ((224, 224), Resize::ShorterEdge(256), Interpolation::Bicubic));
        let old = r#"{"feature_extractor_type": "ConvNextFeatureExtractor", "crop_pct": 0.875, "size": 224}"#;
        assert_eq!(processor(old), (size, p));
        let (size, p) = processor(&json(r#"{"shortest_edge": 384}"#));
        assert_eq!((size, p.resize), ((384, 384), Resize::Exact { height: 384, width: 384 }));
        assert!(Processor::new(&object(&json(r#"{"height": 224}"#))).expect("a processor").output().is_err());
    }

    #[test]
    fn rescaling_moves_into_mean_and_std() {
        let (_, plain) = processor(r#"{"image_processor_type": "ViTImageProcessor", "do_normalize": false}"#);
        assert_eq!((plain.mean, plain.std), ([0.0; 3], [1.0; 3]));
        // (255 u - mean) / std on pixels u in [0, 1]
        let raw = r#"{"do_rescale": false, "image_mean": [127.5, 127.5, 127.5], "image_std": [255, 255, 255]}"#;
        let (_, raw) = processor(raw);
        assert_eq!((raw.mean, raw.std), ([0.5; 3], [1.0; 3]));
        // pixels to [0, 2]
        let (_, double) =
            processor(r#"{"rescale_factor": 0.00784313725490196, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}"#);
        assert!((double.mean[0] - 0.5).abs() < 1e-6 && (double.std[0] - 0.5).abs() < 1e-6);
    }

    #[test]
    fn another_size_keeps_the_proportion_of_the_resize() {
        let json = object(
            r#"{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "crop_size": 224}"#,
        );
        let processor = Processor::new(&json).expect("a processor");
        let at = |size| processor.preprocess(size, &Options::default(), &mut Vec::new()).expect("a preparation").resize;
        assert_eq!(at((448, 448)), Resize::ShorterEdge(512));
        assert_eq!(at((448, 224)), Resize::Cover { height: 512, width: 256 });
    }
}
