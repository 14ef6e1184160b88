//! From the hubs' descriptions of image preparation to the engine's: timm's here, transformers' in `processor`. The
//! arithmetic itself is the engine's.

use std::path::Path;

use vitlet::picture::{CropRounding, Interpolation, Preprocess, Resize};

use crate::error::Error;
use crate::json::Object;
use crate::labels::{self, Given};
use crate::options::Options;
pub(crate) use processor::Processor;

mod processor;

/// The mean and standard deviation of ImageNet, timm's default.
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// What timm takes where nothing is said: the keys of its configuration, and the values in words.
const DEFAULTS: [(&str, &str); 4] = [
    ("mean", "mean 0.485,0.456,0.406"),
    ("std", "std 0.229,0.224,0.225"),
    ("crop_pct", "crop-pct 0.875"),
    ("interpolation", "interpolation bicubic"),
];

/// Those of [`DEFAULTS`] that neither the user nor a configuration decides.
pub(crate) fn taken_by_default(options: &Options, said: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let chosen =
        [options.mean.is_some(), options.std.is_some(), options.crop_pct.is_some(), options.interpolation.is_some()];
    let open = DEFAULTS.into_iter().zip(chosen).filter(|((key, _), chosen)| !chosen && !said(key));
    open.map(|((_, words), _)| words).collect()
}

/// timm's `pretrained_cfg`. In its older form, config.json has the same entries at the top (and calls the labels so).
pub(crate) fn pretrained_cfg(config: &Object) -> Object {
    if config.value("pretrained_cfg").is_some() {
        return config.object("pretrained_cfg");
    }
    let mut flat = config.clone();
    flat.rename("labels", "label_names");
    flat
}

/// timm's evaluation transform (`transforms_imagenet_eval`) for pictures of `size` (height, width), as its
/// `pretrained_cfg` says.
///
/// # Errors
/// An interpolation or crop mode that the engine does not have.
pub(crate) fn timm(
    cfg: &Object,
    size: (usize, usize),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Preprocess, Error> {
    let by_default = taken_by_default(options, |key| cfg.value(key).is_some());
    if !by_default.is_empty() {
        let file = cfg.file();
        announcements
            .push(format!("{file} omits settings for pictures: timm's defaults are taken, {}", by_default.join(", ")));
    }
    timm_or_default(cfg, size, options)
}

/// ImageNet's evaluation transform for pictures of `size` (height, width), with the user's changes.
///
/// # Errors
/// As [`timm`].
pub(crate) fn imagenet(size: (usize, usize), options: &Options) -> Result<Preprocess, Error> {
    timm_or_default(&Object::new("", "", serde_json::Map::new()), size, options)
}

fn timm_or_default(cfg: &Object, size: (usize, usize), options: &Options) -> Result<Preprocess, Error> {
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
        other => return Err(cfg.error("crop_mode", format!("{other} is not supported; center, squash and border are"))),
    };
    check(Preprocess {
        height: pixels(size.0)?,
        width: pixels(size.1)?,
        resize,
        interpolation,
        crop_rounding: CropRounding::Even,
        crop_pct: [size.0, size.1].iter().any(|n| (*n as f64 / pct).fract() != 0.0).then_some(pct),
        size_rule: None,
        mean: options.mean.or(cfg.rgb("mean")?.map(narrow)).unwrap_or(narrow(IMAGENET.0)),
        std: options.std.or(cfg.rgb("std")?.map(narrow)).unwrap_or(narrow(IMAGENET.1)),
    })
}

/// What a checkpoint directory says about pictures, for a network of `size` (height, width), and about labels.
///
/// # Errors
/// A directory that is neither timm's nor transformers', or a preparation that is not supported.
pub(crate) fn from_dir(
    dir: &Path,
    size: (usize, usize),
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<(Preprocess, Option<Given>), Error> {
    let config = dir.join("config.json");
    let json = if config.is_file() { Some(Object::read(&config)?) } else { None };
    if let Some(json) = json.as_ref().filter(|json| json.value("architecture").is_some()) {
        let pretrained = pretrained_cfg(json);
        let labels = labels::timm(json, &pretrained);
        return Ok((timm(&pretrained, size, options, announcements)?, labels));
    }
    let model_type = json.as_ref().map_or(Ok(None), |json| json.text("model_type"))?;
    match Processor::read(dir, model_type.unwrap_or_default())? {
        Some(processor) => {
            // What asks for it has one size.
            let preprocess = Preprocess { size_rule: None, ..processor.preprocess(size, options, announcements)? };
            Ok((preprocess, json.as_ref().and_then(labels::transformers)))
        }
        None => Err(Error::file(
            dir,
            "no preprocessor_config.json and no config.json of timm: nothing says how pictures are prepared",
        )),
    }
}

/// A complete preparation, with the user's changes.
///
/// # Errors
/// An invalid crop percentage or mean.
pub(crate) fn overridden(mut preprocess: Preprocess, options: &Options) -> Result<Preprocess, Error> {
    if let Some(pct) = options.crop_pct {
        preprocess.size_rule = None;
        let (height, width) = enlarged((preprocess.height as usize, preprocess.width as usize), pct)?;
        preprocess.resize = Resize::Cover { height, width };
        preprocess.crop_pct = None;
    }
    preprocess.interpolation = options.interpolation.unwrap_or(preprocess.interpolation);
    preprocess.mean = options.mean.unwrap_or(preprocess.mean);
    preprocess.std = options.std.unwrap_or(preprocess.std);
    check(preprocess)
}

/// timm's `floor(x / crop_pct)` of height and width.
fn enlarged(size: (usize, usize), pct: f64) -> Result<(u32, u32), Error> {
    if !(0.01..=1.0).contains(&pct) {
        return Err(Error::new("crop-pct", format!("{pct} is not between 0.01 and 1")));
    }
    // At most 100 times the size, far from where a double is not exact.
    let floor = |n: usize| pixels((n as f64 / pct).floor() as usize);
    Ok((floor(size.0)?, floor(size.1)?))
}

/// What the user should know where the size of the input (height, width) follows the picture's.
pub(crate) fn size_rule_in_words(size: (usize, usize)) -> String {
    format!(
        "pictures keep their aspect ratio where a command takes the size that the file's rule gives, as vitlet depth \
         and vitlet segment do; other commands stretch them to {}x{} pixels, and --size WxH sets another size",
        size.1, size.0
    )
}

/// A length in pixels as the engine has it.
fn pixels(n: usize) -> Result<u32, Error> {
    u32::try_from(n).map_err(|_| Error::new("picture size", format!("{n} pixels are too many")))
}

fn narrow(rgb: [f64; 3]) -> [f32; 3] {
    rgb.map(|x| x as f32)
}

fn unknown_interpolation(name: &str) -> String {
    format!("{name} is not supported; choose --interpolation bicubic or bilinear")
}

fn check(preprocess: Preprocess) -> Result<Preprocess, Error> {
    let usable = |x: &f32| x.is_finite();
    if !preprocess.mean.iter().all(usable) || !preprocess.std.iter().all(|s| usable(s) && *s != 0.0) {
        return Err(Error::new("mean and std", "they must be finite, and std not zero"));
    }
    let edges = match preprocess.resize {
        Resize::ShorterEdge(edge) => [edge; 2],
        Resize::Exact { height, width } | Resize::Cover { height, width } | Resize::Contain { height, width } => {
            [height, width]
        }
    };
    match edges.contains(&0) {
        true => Err(Error::new("picture size", "pictures would be resized to nothing")),
        false => Ok(preprocess),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object {
        match serde_json::from_str(json).expect("JSON") {
            serde_json::Value::Object(map) => Object::new("config.json", "", map),
            other => panic!("{other} is not an object"),
        }
    }

    fn timm_resize(json: &str, size: (usize, usize)) -> Resize {
        timm_or_default(&object(json), size, &Options::default()).expect("a preparation").resize
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
            assert!(timm_or_default(&object(bad), (224, 224), &Options::default()).is_err(), "{bad}");
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
        let p = timm_or_default(&cfg, (32, 32), &options).expect("a preparation");
        assert_eq!(
            (p.mean, p.std, p.resize, p.interpolation),
            ([0.1; 3], [0.2; 3], Resize::ShorterEdge(64), Interpolation::Bilinear)
        );
        let again = overridden(p, &Options { crop_pct: Some(1.0), ..Options::default() }).expect("a preparation");
        assert_eq!(again.resize, Resize::Cover { height: 32, width: 32 });
    }
}
