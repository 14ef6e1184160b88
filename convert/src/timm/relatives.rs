//! BEiT, DINOv3 and CaiT in timm: ViTs but for what their attention does, whose constructors (`Beit`, `Eva` and `Cait`) call some
//! arguments otherwise than `VisionTransformer` does.

use vitlet::Family;

use crate::error::Error;
use crate::json::Object;

/// What these constructors say beyond [`super::plan`]'s arguments.
#[derive(Clone, Copy)]
pub(super) struct Relative {
    pub(super) family: Family,
    /// CaiT: blocks of class attention.
    pub(super) class_blocks: usize,
    /// BEiT: a table in each block; one for all blocks.
    pub(super) tables: (bool, bool),
    /// DINOv3: the longest period of the rotations.
    pub(super) rope_base: f64,
}

/// Finds out the family, and gives its arguments the names of `VisionTransformer`.
///
/// # Errors
/// A variant that we do not run.
pub(super) fn translate(name: &str, args: &mut Object) -> Result<Relative, Error> {
    let mut relative = Relative { family: Family::Vit, class_blocks: 0, tables: (false, false), rope_base: 100.0 };
    if name.starts_with("beit") {
        relative.family = Family::Beit;
        let flag = |key| args.flag(key).map(Option::unwrap_or_default);
        relative.tables = (flag("use_rel_pos_bias")?, flag("use_shared_rel_pos_bias")?);
        if args.flag("use_abs_pos_emb")?.unwrap_or(true) || relative.tables == (false, false) {
            let why = "BEiT is run with relative positions (use_rel_pos_bias or use_shared_rel_pos_bias) alone";
            return Err(args.error("use_abs_pos_emb", why));
        }
        ["use_rel_pos_bias", "use_shared_rel_pos_bias"].into_iter().for_each(|key| args.remove(key));
    } else if args.text("rope_type")? == Some("dinov3") {
        relative.family = Family::Dinov3;
        relative.rope_base = args.number("rope_temperature")?.unwrap_or(10_000.0);
        for (key, needed) in [("use_rot_pos_emb", true), ("rope_rotate_half", true), ("use_abs_pos_emb", false)] {
            if args.flag(key)? != Some(needed) {
                return Err(args.error(key, format!("DINOv3 is run with {needed}")));
            }
            args.remove(key);
        }
        // The last three only augment in training.
        let read = ["rope_type", "rope_temperature", "rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords"];
        read.into_iter().for_each(|key| args.remove(key));
        args.rename("num_reg_tokens", "reg_tokens");
        args.rename("use_pre_transformer_norm", "pre_norm");
    } else if name.starts_with("cait") {
        relative.family = Family::Cait;
        relative.class_blocks = args.len("depth_token_only")?.unwrap_or(2);
        let ratio = |key| args.number(key).map(|r| r.unwrap_or(4.0));
        if ratio("mlp_ratio_token_only")? != ratio("mlp_ratio")? {
            return Err(args.error("mlp_ratio_token_only", "another than mlp_ratio is not run"));
        }
        ["depth_token_only", "mlp_ratio_token_only"].into_iter().for_each(|key| args.remove(key));
        args.default("init_values", 1e-4);
        args.default("no_embed_class", true);
        args.default("fc_norm", false);
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
