//! Depth Anything (versions 1 and 2): DINOv2 with a DPT head, in transformers' form here, in its authors' in
//! `original`. Source of the facts: transformers' modeling_depth_anything.py (transformers 5).

use serde_json::Value;
use vitlet::config::{Dpt as Widths, Enlarging};
use vitlet::{Config, Head};

use super::Stated;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::json::Object;
use crate::network::{Dpt, Layer, Linear, Tap, Unit};

pub(crate) mod original;

/// Names of the head's layers, by tap (0 to 3), unit (1, 2) and convolution (1, 2).
pub(super) struct Names {
    project: fn(usize) -> String,
    resize: fn(usize) -> String,
    conv: fn(usize) -> String,
    unit: fn(usize, usize, usize) -> String,
    fuse: fn(usize) -> String,
    end: [&'static str; 3],
}

/// transformers'. The deepest map is fused first.
pub(super) const NAMES: Names = Names {
    project: |tap| format!("neck.reassemble_stage.layers.{tap}.projection"),
    resize: |tap| format!("neck.reassemble_stage.layers.{tap}.resize"),
    conv: |tap| format!("neck.convs.{tap}"),
    unit: |tap, unit, conv| format!("neck.fusion_stage.layers.{}.residual_layer{unit}.convolution{conv}", 3 - tap),
    fuse: |tap| format!("neck.fusion_stage.layers.{}.projection", 3 - tap),
    end: ["head.conv1", "head.conv2", "head.conv3"],
};

/// What config.json states of the whole network.
///
/// # Errors
/// A head that is no DPT head, or on another backbone than DINOv2.
pub(super) fn stated(json: &Object) -> Result<Stated, Error> {
    let backbone = json.object("backbone_config");
    if !matches!(backbone.text("model_type")?, Some("dinov2")) {
        return Err(backbone.error("model_type", "Depth Anything is supported on DINOv2"));
    }
    let mut stated = super::stated(&backbone)?;
    let four = |json: &Object, key: &str, default: [usize; 4]| -> Result<[usize; 4], Error> {
        let Some(value) = json.value(key) else { return Ok(default) };
        let numbers = value.as_array().map_or(&[][..], Vec::as_slice);
        let numbers: Option<Vec<usize>> =
            numbers.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect();
        let four = numbers.and_then(|numbers| numbers.try_into().ok());
        four.ok_or_else(|| json.error(key, "a DPT head has four of them"))
    };
    let depth = stated.config.depth;
    let indices = four(&backbone, "out_indices", [depth; 4])?;
    let taps = indices.map(|after| after.checked_sub(1));
    let [Some(a), Some(b), Some(c), Some(d)] = taps else {
        return Err(backbone.error("out_indices", "the head reads the tokens after blocks, which are numbered from 1"));
    };
    if backbone.flag("apply_layernorm")? == Some(false) {
        return Err(backbone.error("apply_layernorm", "false is not supported"));
    }
    let factors = json.value("reassemble_factors").and_then(Value::as_array).map(Vec::as_slice);
    let factors: Option<Vec<f64>> = factors.map(|list| list.iter().filter_map(Value::as_f64).collect());
    if factors.is_some_and(|factors| factors != [4.0, 2.0, 1.0, 0.5]) {
        return Err(json.error("reassemble_factors", "only [4, 2, 1, 0.5] is supported"));
    }
    if json.value("head_in_index").and_then(Value::as_i64).is_some_and(|index| index != -1) {
        return Err(json.error("head_in_index", "only -1, the last fused map, is supported"));
    }
    let metric = match json.text("depth_estimation_type")?.unwrap_or("relative") {
        "relative" => false,
        "metric" => true,
        other => return Err(json.error("depth_estimation_type", format!("{other} is neither relative nor metric"))),
    };
    stated.config.head = Head::Depth(Widths {
        taps: [a, b, c, d],
        reassembled: four(json, "neck_hidden_sizes", [48, 96, 192, 384])?,
        fused: json.len("fusion_hidden_size")?.unwrap_or(64),
        hidden: json.len("head_hidden_size")?.unwrap_or(32),
        metric,
        max_depth: json.number("max_depth")?.unwrap_or(1.0) as f32,
        enlarging: Enlarging::Bicubic,
    });
    // The file lists no labels of classes.
    stated.labels = 0;
    Ok(stated)
}

/// The head's tensors.
///
/// # Errors
/// Tensors that are missing or of another shape.
pub(super) fn head(checkpoint: &mut Checkpoint, config: &Config, widths: &Widths, names: &Names) -> Result<Dpt, Error> {
    let fused = widths.fused;
    let mut taps: [Tap; 4] = Default::default();
    for (k, tap) in taps.iter_mut().enumerate() {
        let n = widths.reassembled[k];
        let resize = (names.resize)(k);
        let mut unit = |number: usize| -> Result<Unit, Error> {
            let mut conv = |conv| around(checkpoint, &(names.unit)(k, number, conv), (fused, fused), true);
            Ok(Unit { conv1: conv(1)?, conv2: conv(2)? })
        };
        let (unit1, unit2) = (unit(1)?, unit(2)?);
        *tap = Tap {
            project: checkpoint.layer(&(names.project)(k), &[n, config.dim, 1, 1], true)?,
            resize: match k {
                0 => Some(transposed(checkpoint, &resize, n, 4)?),
                1 => Some(transposed(checkpoint, &resize, n, 2)?),
                2 => None,
                _ => Some(around(checkpoint, &resize, (n, n), true)?),
            },
            conv: around(checkpoint, &(names.conv)(k), (fused, n), false)?,
            // Checkpoints have the deepest one, too, but the network does not use it.
            unit1: (k < 3).then_some(unit1),
            unit2,
            fuse: checkpoint.layer(&(names.fuse)(k), &[fused, fused, 1, 1], true)?,
        };
    }
    let [conv1, conv2, conv3] = names.end;
    Ok(Dpt {
        taps,
        conv1: around(checkpoint, conv1, (fused / 2, fused), true)?,
        conv2: around(checkpoint, conv2, (widths.hidden, fused / 2), true)?,
        conv3: checkpoint.layer(conv3, &[1, widths.hidden, 1, 1], true)?,
    })
}

/// A 3 x 3 convolution of `k` to `n` channels.
fn around(checkpoint: &mut Checkpoint, name: &str, (n, k): (usize, usize), bias: bool) -> Result<Layer, Error> {
    let mut layer = checkpoint.layer(name, &[n, k, 3, 3], bias)?;
    layer.change(|conv| conv.taps_outside(9));
    Ok(layer)
}

/// A transposed convolution of `n` channels whose stride is its kernel, stored `[inputs][outputs][dy][dx]`.
fn transposed(checkpoint: &mut Checkpoint, name: &str, n: usize, kernel: usize) -> Result<Layer, Error> {
    let stored = checkpoint.layer(name, &[n, n, kernel, kernel], false)?;
    let bias = checkpoint.take(&format!("{name}.bias"), &[n])?;
    let taps = kernel * kernel;
    Ok(Layer::new(taps * n, n, move || {
        let stored = stored.load()?;
        let mut weight = vec![0.0; taps * n * n];
        for (input, row) in stored.rows().enumerate() {
            for (i, x) in row.iter().enumerate() {
                let (output, tap) = (i / taps, i % taps);
                weight[(tap * n + output) * n + input] = *x;
            }
        }
        Ok(Linear { n: taps * n, k: n, weight, bias: bias.repeat(taps) })
    }))
}
