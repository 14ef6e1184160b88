//! `--arch`: weights that come without a config.json, described by the name of timm's architecture.
//!
//! data/timm_preparations.json has how timm prepares pictures for each of an architecture's tags. With it, the
//! architecture's arguments (`timm`) and what the checkpoint itself says (`arch` and `args` of timm's train.py), a
//! config.json is made as timm would write it. `looks` reads from the tensors' shapes which architectures the weights
//! can be for.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::options::Options;
use crate::timm;

mod looks;

use looks::Looks;

const PREPARATIONS: &str = include_str!("../data/timm_preparations.json");

/// How many names an error lists.
const LISTED: usize = 6;

fn table() -> &'static Value {
    static TABLE: OnceLock<Value> = OnceLock::new();
    TABLE.get_or_init(|| serde_json::from_str(PREPARATIONS).unwrap_or_default())
}

/// The tags of an architecture with their preparations, the default one first; none of an unknown one.
fn tags(name: &str) -> Vec<(&'static str, &'static Map<String, Value>)> {
    let tags = table()["tags"].get(name).and_then(Value::as_array);
    let pair = |pair: &'static Value| -> Option<(&'static str, &'static Map<String, Value>)> {
        let at = usize::try_from(pair[1].as_u64()?).ok()?;
        Some((pair[0].as_str()?, table()["preparations"][at].as_object()?))
    };
    tags.into_iter().flatten().filter_map(pair).collect()
}

/// An architecture of timm's with one of its preparations.
struct Named {
    /// Without the tag.
    name: String,
    tag: String,
    /// Whether it is the tag of these weights. The default one is not, and training leaves that of the first weights in
    /// its checkpoints.
    is_theirs: bool,
}

impl Named {
    /// `NAME` or `NAME.TAG`.
    fn new(text: &str, looks: Option<&Looks>) -> Result<Self, Error> {
        let (name, tag) = text.split_once('.').map_or((text, None), |(name, tag)| (name, Some(tag)));
        let fail = |why: String| Err(Error::new(format!("--arch {text}"), why));
        let tags = tags(name);
        let Some((default, _)) = tags.first() else {
            let suggested = looks.map_or(String::new(), |looks| format!("; the weights {}", looks.suggestion()));
            return fail(format!("not supported{suggested}; known are {}", timm::what_we_run()));
        };
        match tag {
            Some(tag) if tags.iter().all(|(known, _)| *known != tag) => fail(format!(
                "no such tag; timm has {}",
                tags.iter().map(|(tag, _)| *tag).collect::<Vec<_>>().join(", ")
            )),
            tag => {
                Ok(Self { name: name.to_owned(), tag: tag.unwrap_or(*default).to_owned(), is_theirs: tag.is_some() })
            }
        }
    }

    /// An architecture as a training checkpoint names it.
    fn of_training(text: &str) -> Result<Self, Error> {
        Ok(Self { is_theirs: false, ..Self::new(text, None)? })
    }

    /// timm's `pretrained_cfg`; its statements about the weights count only if the tag belongs to these weights.
    fn pretrained(&self) -> Map<String, Value> {
        let found = tags(&self.name).into_iter().find(|(tag, _)| *tag == self.tag);
        let mut cfg = found.map(|(_, preparation)| preparation.clone()).unwrap_or_default();
        if self.is_theirs {
            cfg.insert("tag".to_owned(), self.tag.as_str().into());
        } else {
            cfg.remove("license");
        }
        cfg
    }
}

/// The config.json of the checkpoint `src`, which has none: for the architecture that `--arch` names, or else the
/// checkpoint itself.
///
/// # Errors
/// No name, a name that is not supported, or weights of another shape; with the architectures that fit.
pub(crate) fn config(
    src: &Path,
    checkpoint: &mut Checkpoint,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<Object, Error> {
    let settings = Object::new("the checkpoint", "", checkpoint.settings().clone());
    let looks = Looks::of(checkpoint);
    let (text, named) = match (&options.arch, own_name(&settings)) {
        (Some(given), _) => (given.clone(), Named::new(given, looks.as_ref())?),
        (None, Some((text, named))) => {
            announcements.push(format!("the architecture is {text}, as the file itself says"));
            (text, named)
        }
        (None, None) => return Err(no_name(src, looks.as_ref())),
    };
    if !named.is_theirs {
        let Named { name, tag, .. } = &named;
        let why = match text.contains('.') {
            true => {
                "as the file says; labels and licence of this tag are not taken, because training may have begun with \
                 its weights"
            }
            false => "timm's default for this architecture",
        };
        announcements.push(format!("pictures are prepared as for {name}.{tag}, {why}"));
    }
    let mut pretrained = named.pretrained();
    let mut model_args = Map::new();
    let trained = trainer_arguments(&settings.object("args"), &mut pretrained, &mut model_args);
    if !trained.is_empty() {
        announcements.push(format!("from the training's arguments in the file: {}", trained.join(", ")));
    }
    if let Some(classes) = options.num_classes {
        model_args.insert("num_classes".to_owned(), classes.into());
    }
    let classes = model_args.get("num_classes").or(pretrained.get("num_classes")).and_then(Value::as_u64);
    let classes = classes.and_then(|n| usize::try_from(n).ok()).unwrap_or(1000);
    if let Some(looks) = &looks {
        looks.check(&text, &named.name, &model_args)?;
        looks.check_classes(&text, classes, options)?;
        if let Some((height, width)) = looks.picture_size(&text, &named.name, &pretrained, &model_args, options)? {
            model_args.insert("img_size".to_owned(), json!([height, width]));
        }
    }
    let architecture = if named.is_theirs { &text } else { &named.name };
    let config = json!({"architecture": architecture, "model_args": model_args, "pretrained_cfg": pretrained});
    checkpoint.describe(&format!("--arch {text}"));
    Ok(Object::new(&format!("--arch {text}"), "", config.as_object().cloned().unwrap_or_default()))
}

/// The architecture that a training checkpoint names, and its name there, if it is a supported one of timm.
fn own_name(settings: &Object) -> Option<(String, Named)> {
    let args = settings.object("args");
    let names = [settings.text("arch"), args.text("model"), args.text("arch")];
    let mut names = names.into_iter().filter_map(|name| name.ok().flatten());
    names.find_map(|name| Some((name.to_owned(), Named::of_training(name).ok()?)))
}

fn no_name(src: &Path, looks: Option<&Looks>) -> Error {
    let suggestion = looks.map_or(String::new(), |looks| format!("; the weights {}", looks.suggestion()));
    let cure =
        "name timm's architecture with --arch, or put the config.json of timm or transformers beside the weights";
    Error::file(src, format!("no config.json names the network of these weights; {cure}{suggestion}"))
}

/// Takes from the arguments of timm's train.py (and DeiT's main.py) what it makes the network and the preparation
/// from. Returns what was taken, in words.
fn trainer_arguments(
    args: &Object,
    pretrained: &mut Map<String, Value>,
    model: &mut Map<String, Value>,
) -> Vec<String> {
    let mut told = Vec::new();
    let given = |key: &str| args.value(key).filter(|v| !matches!(v, Value::String(s) if s.is_empty())).cloned();
    let mut take = |key: &str, to: &str, value: Option<Value>, map: &mut Map<String, Value>| {
        if let Some(value) = value {
            told.push(format!("{key} {value}"));
            map.insert(to.to_owned(), value);
        }
    };
    for (key, to) in [("nb_classes", "num_classes"), ("num_classes", "num_classes"), ("gp", "global_pool")] {
        take(key, to, given(key), model);
    }
    let sides = |v: &Value| v.as_array().filter(|v| v.len() == 3).map(|v| json!([v[1], v[2]]));
    let size = given("input_size").and_then(|v| if v.is_u64() { Some(v) } else { sides(&v) });
    take("input_size", "img_size", size, model);
    take("img_size", "img_size", given("img_size").filter(Value::is_u64), model);
    for (key, value) in given("model_kwargs").as_ref().and_then(Value::as_object).into_iter().flatten() {
        take(key, key, Some(value.clone()), model);
    }
    let rgb = |key: &str| args.rgb(key).ok().flatten().map(|rgb| json!(rgb));
    take("mean", "mean", rgb("mean"), pretrained);
    take("std", "std", rgb("std"), pretrained);
    take("crop_pct", "crop_pct", given("crop_pct").filter(Value::is_number), pretrained);
    take("crop_mode", "crop_mode", given("crop_mode"), pretrained);
    let filter = given("interpolation").filter(|v| v == "bicubic" || v == "bilinear");
    take("interpolation", "interpolation", filter, pretrained);
    told
}

#[cfg(test)]
mod tests {
    use vitlet::picture::Preprocess;

    use super::*;
    use crate::preprocess;

    /// The preparation of an architecture's default weights.
    fn prepared(name: &str) -> Result<Preprocess, Error> {
        let pretrained = Object::new("the table", "", Named::new(name, None)?.pretrained());
        preprocess::timm(&pretrained, (224, 224), &Options::default(), &mut Vec::new())
    }

    #[test]
    fn every_architecture_has_a_preparation_and_a_shape() {
        for name in timm::architectures().keys() {
            assert!(!tags(name).is_empty() && looks::is_known(name), "{name}");
            for (tag, _) in tags(name) {
                prepared(&format!("{name}.{tag}")).unwrap_or_else(|e| panic!("{name}.{tag}: {e}"));
            }
        }
    }

    /// Facts of timm 1.0.31.
    #[test]
    fn the_first_tag_is_timms_default() {
        for (name, default) in
            [("vit_base_patch16_224", "augreg2_in21k_ft_in1k"), ("deit3_small_patch16_224", "fb_in1k")]
        {
            assert_eq!(Named::new(name, None).expect("known").tag, default);
        }
        let mae = Named::new("vit_base_patch16_224.mae", None).expect("known").pretrained();
        assert_eq!((&mae["license"], &mae["num_classes"]), (&"cc-by-nc-4.0".into(), &0.into()));
        let default = Named::new("vit_base_patch16_224", None).expect("known").pretrained();
        assert!(!default.contains_key("license") && !default.contains_key("tag"));
        // timm's train.py keeps the tag that it was started with: the preparation is that tag's, nothing else.
        let trained = Named::of_training("vit_base_patch16_224.mae").expect("known").pretrained();
        assert!(!trained.contains_key("license") && !trained.contains_key("tag"));
        assert_eq!(trained["mean"], mae["mean"]);
    }
}
