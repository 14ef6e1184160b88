//! transformers' image processors: `preprocessor_config.json`, or the part `image_processor` of processor_config.json.
//! Source of the facts: the classes' defaults in transformers 5.24 and the files of the checkpoints that their authors
//! published.

use std::path::Path;

use serde_json::{Map, Value, json};
use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize, Scale, SizeRule};

use super::{IMAGENET, check, enlarged, narrow, pixels, unknown_interpolation};
use crate::error::Error;
use crate::json::Object;
use crate::options::Options;

const HALF: ([f64; 3], [f64; 3]) = ([0.5; 3], [0.5; 3]);
const CLIP: ([f64; 3], [f64; 3]) =
    ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]);

/// What an image processor's configuration says, with the defaults of the processor that it names.
pub(crate) struct Processor {
    json: Object,
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
    /// Depth Anything's: the picture is stretched, or keeps its ratio.
    Dpt,
    /// Below 384 pixels the shortest edge is made larger by `crop_pct` and the middle is cut out; from there on the
    /// picture is stretched.
    ConvNext,
}

/// What the names of the processors begin with.
const KINDS: [(&str, Kind); 8] = [
    ("DPT", Kind::Dpt),
    ("ViT", Kind::Vit),
    ("DeiT", Kind::Deit),
    ("Bit", Kind::Bit),
    ("CLIP", Kind::Bit),
    ("Beit", Kind::Beit),
    ("DINOv3", Kind::Dinov3),
    ("ConvNext", Kind::ConvNext),
];

impl Processor {
    /// The processor of a checkpoint directory for a network of `model_type`: the one that processor_config.json holds
    /// (transformers 5 looks there first), else that of preprocessor_config.json. None if there is neither.
    ///
    /// # Errors
    /// A processor that prepares pictures in some other way.
    pub(crate) fn read(dir: &Path, model_type: &str) -> Result<Option<Self>, Error> {
        let (nested, own) = (dir.join("processor_config.json"), dir.join("preprocessor_config.json"));
        if nested.is_file() {
            let nested = Object::read(&nested)?;
            if nested.value("image_processor").is_some_and(Value::is_object) {
                return Self::new(nested.object("image_processor"), model_type).map(Some);
            }
        }
        if !own.is_file() {
            return Ok(None);
        }
        Object::read(&own).and_then(|json| Self::new(json, model_type)).map(Some)
    }

    fn new(json: Object, model_type: &str) -> Result<Self, Error> {
        let name = json.text("image_processor_type")?.or(json.text("feature_extractor_type")?);
        let Some(name) = name else {
            let (kind, _) = usual(model_type, (224, 224));
            return Ok(Self { json, kind });
        };
        match KINDS.iter().find(|(stem, _)| name.starts_with(stem)) {
            Some(&(_, kind)) => Ok(Self { json, kind }),
            None => {
                let why = format!(
                    "{name} is not supported; ViT, DeiT, Bit, CLIP, Beit, DINOv3, DPT and ConvNext image processors are"
                );
                Err(json.error("image_processor_type", why))
            }
        }
    }

    /// The preparation that the published checkpoints of `model_type` have, for pictures of `size` (height, width): a
    /// guess where the checkpoint itself does not say it.
    ///
    /// # Errors
    /// As [`Processor::read`].
    pub(crate) fn usual(model_type: &str, size: (usize, usize)) -> Self {
        let (kind, json) = usual(model_type, size);
        let map = match json {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self { json: Object::new("config.json", "", map), kind }
    }

    fn crops(&self) -> Result<bool, Error> {
        Ok(self.json.flag("do_center_crop")?.unwrap_or(matches!(self.kind, Kind::Deit | Kind::Bit)))
    }

    /// `{"height", "width"}`, `{"shortest_edge"}` or a bare number; the processor's default if it is missing.
    fn resize(&self) -> Result<Resize, Error> {
        let size = self.json.object("size");
        let bare = self.json.value("size").is_some_and(|v| !v.is_object());
        let edge = if bare { self.json.size("size")? } else { None };
        if self.kind == Kind::ConvNext {
            return Ok(match self.convnext_edge()? {
                edge @ 384.. => Resize::Exact { height: pixels(edge)?, width: pixels(edge)? },
                edge => {
                    let pct = self.json.number("crop_pct")?.unwrap_or(224.0 / 256.0);
                    Resize::ShorterEdge(enlarged((edge, edge), pct)?.0)
                }
            });
        }
        Ok(match (edge, size.edge("shortest_edge")?, size.edge("height")?.zip(size.edge("width")?)) {
            (Some((h, _)), _, _) if self.kind == Kind::Bit => Resize::ShorterEdge(pixels(h)?),
            (Some((h, w)), _, _) | (_, _, Some((h, w))) => Resize::Exact { height: pixels(h)?, width: pixels(w)? },
            (_, Some(edge), _) => Resize::ShorterEdge(pixels(edge)?),
            _ if self.json.value("size").is_some() => {
                return Err(self.json.error("size", "neither height and width nor shortest_edge"));
            }
            _ => match self.kind {
                Kind::Vit | Kind::Beit | Kind::Dinov3 => Resize::Exact { height: 224, width: 224 },
                Kind::Deit => Resize::Exact { height: 256, width: 256 },
                Kind::Dpt => Resize::Exact { height: 384, width: 384 },
                Kind::Bit => Resize::ShorterEdge(224),
                Kind::ConvNext => Resize::Exact { height: 384, width: 384 },
            },
        })
    }

    /// ConvNeXt's `size`: the edge of the result.
    fn convnext_edge(&self) -> Result<usize, Error> {
        let size = self.json.object("size");
        match self.json.value("size") {
            None => Ok(384),
            Some(size) if !size.is_object() => Ok(self.json.size("size")?.map_or(384, |(edge, _)| edge)),
            Some(_) => size
                .edge("shortest_edge")?
                .ok_or_else(|| self.json.error("size", "no shortest_edge, which a ConvNext image processor needs")),
        }
    }

    /// The size (height, width) of the result.
    ///
    /// # Errors
    /// Sizes that are not sizes.
    pub(crate) fn output(&self) -> Result<(usize, usize), Error> {
        if self.crops()? {
            let crop = self.json.object("crop_size");
            return Ok(match crop.edge("height")?.zip(crop.edge("width")?) {
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
        let json = &self.json;
        if self.kind == Kind::Dinov3 {
            announcements.push(
                "DINOv3's processor resizes in floating point, vitlet in bytes: pixels differ by half a level"
                    .to_owned(),
            );
        }
        let is_chosen = options.image_size.is_some() || options.crop_pct.is_some();
        let size_rule = if is_chosen { None } else { self.size_rule()? };
        let own = self.output()?;
        let scaled = |n: u32, own: usize, new: usize| pixels((n as usize).saturating_mul(new) / own.max(1));
        let resize = match (self.resize()?, options.crop_pct) {
            (_, Some(pct)) => {
                let (height, width) = enlarged(size, pct)?;
                Resize::Cover { height, width }
            }
            _ if json.flag("do_resize")? == Some(false) => {
                announcements.push(format!(
                    "{} has do_resize false: pictures of another size than {}x{} are resized to it",
                    json.file(),
                    size.0,
                    size.1
                ));
                Resize::Exact { height: pixels(size.0)?, width: pixels(size.1)? }
            }
            (Resize::Exact { height, width }, _) => {
                Resize::Exact { height: scaled(height, own.0, size.0)?, width: scaled(width, own.1, size.1)? }
            }
            (Resize::ShorterEdge(edge), _) if size.0 == size.1 => Resize::ShorterEdge(scaled(edge, own.0, size.0)?),
            (Resize::ShorterEdge(edge), _) => {
                Resize::Cover { height: scaled(edge, own.0, size.0)?, width: scaled(edge, own.1, size.1)? }
            }
            (other, _) => other,
        };
        let (mean, std) = self.normalization(options)?;
        check(Preprocess {
            height: pixels(size.0)?,
            width: pixels(size.1)?,
            resize,
            interpolation: self.interpolation(options)?,
            crop_rounding: CropRounding::Floor,
            crop_pct: None,
            size_rule,
            mean,
            std,
        })
    }

    /// Where the processor keeps the picture's aspect ratio.
    fn size_rule(&self) -> Result<Option<SizeRule>, Error> {
        let (keeps, resizes) = (self.json.flag("keep_aspect_ratio")?, self.json.flag("do_resize")?);
        if self.kind != Kind::Dpt || keeps != Some(true) || resizes == Some(false) {
            return Ok(None);
        }
        let multiple = pixels(self.json.len("ensure_multiple_of")?.unwrap_or(1).max(1))?;
        Ok(Some(SizeRule { scale: Scale::Nearer, multiple }))
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
        let json = &self.json;
        let default = match self.kind {
            Kind::Vit | Kind::Deit | Kind::Beit | Kind::ConvNext | Kind::Dpt => HALF,
            Kind::Bit => CLIP,
            Kind::Dinov3 => IMAGENET,
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

/// The processor that the published checkpoints of a model type have: google's vit, facebook's deit, dinov2, dinov3 and
/// convnext, microsoft's beit. Those of deit, dinov2 and convnext have ImageNet's mean, which is not their classes'
/// default.
fn usual(model_type: &str, size: (usize, usize)) -> (Kind, Value) {
    let exact = |(height, width): (usize, usize)| json!({"height": height, "width": width});
    // 256 for 224, as in all evaluations on ImageNet.
    let enlarged = |n: usize| n * 256 / 224;
    let (mean, std) = IMAGENET;
    match model_type {
        "deit" => {
            let (resized, crop) = (exact((enlarged(size.0), enlarged(size.1))), exact(size));
            (Kind::Deit, json!({"size": resized, "crop_size": crop, "image_mean": mean, "image_std": std}))
        }
        "dinov2" | "dinov2_with_registers" => {
            // Their position embeddings are for 518 x 518 pixels, their processors make 224 x 224.
            let size = if size == (518, 518) { (224, 224) } else { size };
            let (edge, crop) = (enlarged(size.0.min(size.1)), exact(size));
            let size = json!({"shortest_edge": edge});
            (Kind::Bit, json!({"size": size, "crop_size": crop, "image_mean": mean, "image_std": std}))
        }
        "convnext" => {
            let size = json!({"shortest_edge": size.0});
            (Kind::ConvNext, json!({"size": size, "crop_pct": 0.875, "image_mean": mean, "image_std": std}))
        }
        "depth_anything" => {
            let json = json!({"size": exact(size), "keep_aspect_ratio": true, "ensure_multiple_of": 14, "resample": 3,
                "image_mean": mean, "image_std": std});
            (Kind::Dpt, json)
        }
        "dinov3_vit" => (Kind::Dinov3, json!({"size": exact(size)})),
        "beit" | "data2vec-vision" => (Kind::Beit, json!({"size": exact(size)})),
        _ => (Kind::Vit, json!({"size": exact(size)})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        match serde_json::from_str(json).expect("JSON") {
            serde_json::Value::Object(map) => Object::new("preprocessor_config.json", "", map),
            other => panic!("{other} is not an object"),
        }
    }

    fn processor(json: &str) -> ((usize, usize), Preprocess) {
        let processor = Processor::new(object(json), "vit").expect("a processor");
        let size = processor.output().expect("a size");
        (size, processor.preprocess(size, &Options::default(), &mut Vec::new()).expect("a preparation"))
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
        assert!(Processor::new(object(r#"{"image_processor_type": "SegformerImageProcessor"}"#), "vit").is_err());
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
        assert!(Processor::new(object(&json(r#"{"height": 224}"#)), "vit").expect("a processor").output().is_err());
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
        let processor = Processor::new(json, "vit").expect("a processor");
        let at = |size| processor.preprocess(size, &Options::default(), &mut Vec::new()).expect("a preparation").resize;
        assert_eq!(at((448, 448)), Resize::ShorterEdge(512));
        assert_eq!(at((448, 224)), Resize::Cover { height: 512, width: 256 });
    }

    #[test]
    fn the_usual_processors_are_those_of_the_published_checkpoints() {
        let usual = |model_type: &str, edge: usize| {
            let processor = Processor::usual(model_type, (edge, edge));
            let size = processor.output().expect("a size");
            (size, processor.preprocess(size, &Options::default(), &mut Vec::new()).expect("a preparation"))
        };
        let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        for (model_type, edge, size, resize) in [
            ("dinov2", 518, 224, Resize::ShorterEdge(256)),
            ("dinov2_with_registers", 28, 28, Resize::ShorterEdge(32)),
            ("deit", 384, 384, Resize::Exact { height: 438, width: 438 }),
            ("convnext", 224, 224, Resize::ShorterEdge(256)),
            ("convnext", 384, 384, Resize::Exact { height: 384, width: 384 }),
            ("dinov3_vit", 224, 224, Resize::Exact { height: 224, width: 224 }),
        ] {
            let (output, p) = usual(model_type, edge);
            assert_eq!((output, p.resize), ((size, size), resize), "{model_type}");
            assert_eq!((p.mean, p.std), imagenet, "{model_type}");
        }
        for model_type in ["vit", "beit", "data2vec-vision"] {
            let (_, p) = usual(model_type, 384);
            assert_eq!((p.mean, p.resize), ([0.5; 3], Resize::Exact { height: 384, width: 384 }), "{model_type}");
        }
    }

    #[test]
    fn a_processor_without_a_name_is_that_of_the_model_type() {
        let named = |model_type: &str| Processor::new(object(r#"{"size": 256}"#), model_type).expect("a processor");
        assert!(
            named("dinov2").kind == Kind::Bit && named("vit").kind == Kind::Vit && named("deit").kind == Kind::Deit
        );
    }

    #[test]
    fn sizes_beyond_32_bits_are_refused() {
        for json in [
            r#"{"size": 4294967328}"#,
            r#"{"size": {"height": 4294967328, "width": 4294967328}}"#,
            r#"{"size": {"shortest_edge": 1099511627776}}"#,
            r#"{"do_center_crop": true, "crop_size": 4294967328}"#,
            r#"{"size": 0}"#,
        ] {
            let refused =
                Processor::new(object(json), "vit").expect("a processor").output().expect_err(json).to_string();
            assert!(
                refused.starts_with("preprocessor_config.json, ") && refused.contains("16777216 pixels"),
                "{refused}"
            );
        }
    }
}
