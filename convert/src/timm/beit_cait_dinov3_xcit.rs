//! BEiT, DINOv3, CaiT and XCiT in timm, whose constructors (`Beit`, `Eva`, `Cait` and `Xcit`) call some arguments
//! otherwise than `VisionTransformer` does.

use vitlet::config::{Cait, Vit, Xcit};
use vitlet::{Family, Positions, Resampling};

use crate::error::Error;
use crate::json::Object;

/// What these constructors say beyond [`super::stated`]'s arguments.
#[derive(Clone, Copy)]
pub(super) struct Relative {
    /// With what only this constructor says.
    family: Family,
    /// XCiT: positions are computed.
    pub(super) fourier: bool,
    /// BEiT: a table in each block; one for all blocks.
    pub(super) tables: (bool, bool),
    pub(super) positions: Positions,
    /// DINOv3: the longest period of the rotations.
    pub(super) rope_base: f64,
}

impl Relative {
    /// The family, with what all constructors say.
    pub(super) fn family(&self, vit: Vit) -> Family {
        let mut family = self.family;
        match &mut family {
            Family::Cait(cait) => (cait.attention, cait.block_norm) = (vit.attention, vit.block_norm),
            Family::Xcit(xcit) => xcit.attention = vit.attention,
            other => other.vit_mut().into_iter().for_each(|own| *own = vit),
        }
        family
    }
}

/// Finds out the family, and gives its arguments the names of `VisionTransformer`.
///
/// # Errors
/// A variant that is not supported.
pub(super) fn translate(name: &str, args: &mut Object) -> Result<Relative, Error> {
    let rule = if name.starts_with("flexivit") { Resampling::Bilinear } else { Resampling::BicubicAntialias };
    let mut relative = Relative {
        family: Family::Vit(Vit::EMPTY),
        fourier: false,
        tables: (false, false),
        positions: Positions::Resampled { rule, grid: None },
        rope_base: 1.0,
    };
    if args.text("block_fn")? == Some("parallel_scaling") {
        relative.family = Family::ParallelVit(Vit::EMPTY);
        let others = ["mlp_layer", "swiglu_mlp", "residual", "block_norm"];
        return match others.into_iter().find(|key| args.value(key).is_some()) {
            Some(key) => Err(args.error(key, "not supported where attention and MLP are side by side")),
            None => Ok(relative),
        };
    }
    if name.starts_with("beit") {
        (relative.family, relative.positions) = (Family::Beit(Vit::EMPTY), Positions::Fixed);
        let flag = |key| args.flag(key).map(Option::unwrap_or_default);
        relative.tables = (flag("use_rel_pos_bias")?, flag("use_shared_rel_pos_bias")?);
        if args.flag("use_abs_pos_emb")?.unwrap_or(true) || relative.tables == (false, false) {
            let why = "BEiT is supported with relative positions (use_rel_pos_bias or use_shared_rel_pos_bias) alone";
            return Err(args.error("use_abs_pos_emb", why));
        }
        ["use_rel_pos_bias", "use_shared_rel_pos_bias"].into_iter().for_each(|key| args.remove(key));
    } else if args.text("rope_type")? == Some("dinov3") {
        relative.family = Family::Dinov3(Vit::EMPTY);
        relative.positions = Positions::Rotated;
        relative.rope_base = args.number("rope_temperature")?.unwrap_or(10_000.0);
        for (key, needed) in [("use_rot_pos_emb", true), ("rope_rotate_half", true), ("use_abs_pos_emb", false)] {
            if args.flag(key)? != Some(needed) {
                return Err(args.error(key, format!("DINOv3 is supported with {needed}")));
            }
            args.remove(key);
        }
        // The last three only augment in training.
        let read = ["rope_type", "rope_temperature", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"];
        read.into_iter().for_each(|key| args.remove(key));
        args.rename("num_reg_tokens", "reg_tokens");
        args.rename("use_pre_transformer_norm", "pre_norm");
    } else if name.starts_with("cait") {
        let class_blocks = args.len("depth_token_only")?.unwrap_or(2);
        relative.family = Family::Cait(Cait { class_blocks, ..Cait::EMPTY });
        let ratio = |key| args.number(key).map(|r| r.unwrap_or(4.0));
        if ratio("mlp_ratio_token_only")? != ratio("mlp_ratio")? {
            return Err(args.error("mlp_ratio_token_only", "only the value of mlp_ratio is supported"));
        }
        ["depth_token_only", "mlp_ratio_token_only"].into_iter().for_each(|key| args.remove(key));
        args.default("init_values", 1e-4);
        args.default("no_embed_class", true);
        args.default("fc_norm", false);
        return Ok(relative);
    } else if name.starts_with("xcit") {
        translate_xcit(args, &mut relative)?;
        return Ok(relative);
    } else {
        return Ok(relative);
    }
    args.remove("use_abs_pos_emb");
    args.remove("head_init_scale");
    args.rename("use_fc_norm", "fc_norm");
    args.default("global_pool", "avg");
    args.default("pos_embed", "none");
    Ok(relative)
}

/// All arguments of `Xcit`, except rates of dropout.
const XCIT: [&str; 14] = [
    "img_size",
    "patch_size",
    "in_chans",
    "num_classes",
    "global_pool",
    "embed_dim",
    "depth",
    "num_heads",
    "mlp_ratio",
    "qkv_bias",
    "cls_attn_layers",
    "use_pos_embed",
    "eta",
    "tokens_norm",
];

fn translate_xcit(args: &mut Object, relative: &mut Relative) -> Result<(), Error> {
    let unknown = args.keys().find(|key| !XCIT.contains(key) && !key.contains("drop"));
    if let Some(key) = unknown {
        return Err(args.error(key, "not supported in XCiT"));
    }
    let class_blocks = args.len("cls_attn_layers")?.unwrap_or(2);
    let tokens_norm = args.flag("tokens_norm")?.unwrap_or(false);
    relative.family = Family::Xcit(Xcit { class_blocks, tokens_norm, ..Xcit::EMPTY });
    relative.positions = Positions::Fixed;
    relative.fourier = args.flag("use_pos_embed")?.unwrap_or(true);
    // What gammas start from says nothing: they are in the checkpoint.
    args.number("eta")?;
    ["cls_attn_layers", "tokens_norm", "use_pos_embed", "eta"].into_iter().for_each(|key| args.remove(key));
    args.default("init_values", 1.0);
    if !relative.fourier {
        args.default("pos_embed", "none");
    }
    args.default("fc_norm", false);
    Ok(())
}
