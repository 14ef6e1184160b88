//! One set of names for a checkpoint's tensors: those that `save_pretrained` writes. In memory, transformers 5 has
//! others (its conversion_mapping.py), and `save_file(model.state_dict())` writes these.

use super::ModelType;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::options::Options;

/// Finds the network in the checkpoint and gives its tensors the names of files. Returns what stands before the base
/// model's names: `vit.` and the like, nothing in a headless model.
///
/// # Errors
/// As [`Checkpoint::unwrap`].
pub(super) fn unify(
    checkpoint: &mut Checkpoint,
    model_type: ModelType,
    options: &Options,
    announcements: &mut Vec<String>,
) -> Result<String, Error> {
    let anchors = model_type.bases().iter().map(|base| {
        let projection = format!("{base}embeddings.{}.weight", model_type.projection());
        vec![projection, format!("{base}embeddings.cls_token")]
    });
    checkpoint.unwrap(&anchors.collect::<Vec<_>>(), &options.ignore, announcements)?;
    let tail = "embeddings.cls_token";
    let base = checkpoint.names().find_map(|name| name.strip_suffix(tail)).unwrap_or_default().to_owned();
    checkpoint.rename(|name| Some(format!("{base}{}", model_type.on_disk(name.strip_prefix(&base)?)?)));
    Ok(base)
}

impl ModelType {
    /// What a classifier calls its base model, most likely first; a base model by itself has no prefix.
    fn bases(self) -> &'static [&'static str] {
        match self {
            Self::Vit => &["vit.", ""],
            Self::Deit => &["deit.", ""],
            Self::Dinov2 => &["dinov2.", "backbone.", ""],
            Self::Dinov2WithRegisters => &["dinov2_with_registers.", ""],
            Self::Dinov3 => &["dinov3_vit.", ""],
            Self::Beit => &["beit.", "data2vec_vision.", ""],
        }
    }

    /// The name on disk of a tensor of the base model; none where it has but one name.
    fn on_disk(self, name: &str) -> Option<String> {
        if self == Self::Dinov3 {
            return name.strip_prefix("model.layer.").map(|rest| format!("layer.{rest}"));
        }
        if let Some(leaf) = name.strip_prefix("shared_position_bias.") {
            return Some(format!("encoder.relative_position_bias.{leaf}"));
        }
        let layer = name.strip_prefix("encoder.layer.").or_else(|| name.strip_prefix("layers."))?;
        let (number, inner) = layer.split_once('.')?;
        let attention = [
            ("attention.q_proj.", "attention.attention.query."),
            ("attention.k_proj.", "attention.attention.key."),
            ("attention.v_proj.", "attention.attention.value."),
            ("attention.o_proj.", "attention.output.dense."),
        ];
        // DINOv2's MLP is called fc1 and fc2 on disk, too.
        let others = [
            ("mlp.fc1.", "intermediate.dense."),
            ("mlp.fc2.", "output.dense."),
            ("relative_position_bias.", "attention.attention.relative_position_bias."),
        ];
        let others = if self.is_dino() { &[][..] } else { &others };
        let mut renamed = attention.iter().chain(others);
        let renamed = renamed.find_map(|(new, old)| Some(format!("{old}{}", inner.strip_prefix(new)?)));
        Some(format!("encoder.layer.{number}.{}", renamed.unwrap_or(inner.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of transformers 5.24 in memory, and the names under which it saves them.
    #[test]
    fn names_in_memory_are_those_on_disk() {
        let vit = [
            ("layers.0.attention.k_proj.bias", "encoder.layer.0.attention.attention.key.bias"),
            ("layers.11.attention.o_proj.weight", "encoder.layer.11.attention.output.dense.weight"),
            ("layers.0.mlp.fc1.weight", "encoder.layer.0.intermediate.dense.weight"),
            ("layers.0.mlp.fc2.bias", "encoder.layer.0.output.dense.bias"),
            ("layers.0.layernorm_before.bias", "encoder.layer.0.layernorm_before.bias"),
            ("encoder.layer.0.output.dense.bias", "encoder.layer.0.output.dense.bias"),
        ];
        for (model_type, (memory, disk)) in
            [ModelType::Vit, ModelType::Deit, ModelType::Beit].iter().flat_map(|f| vit.map(|n| (f, n)))
        {
            assert_eq!(model_type.on_disk(memory).as_deref(), Some(disk));
        }
        let table = "relative_position_bias.relative_position_bias_table";
        let beit = |name: &str| ModelType::Beit.on_disk(name).expect("a name");
        assert_eq!(beit(&format!("layers.3.{table}")), format!("encoder.layer.3.attention.attention.{table}"));
        assert_eq!(beit("shared_position_bias.relative_position_bias_table"), format!("encoder.{table}"));
        assert_eq!(beit("layers.3.lambda_1"), "encoder.layer.3.lambda_1");

        let dino = |name: &str| ModelType::Dinov2WithRegisters.on_disk(name).expect("a name");
        let query = "encoder.layer.1.attention.attention.query.weight";
        assert_eq!(dino("encoder.layer.1.attention.q_proj.weight"), query);
        assert_eq!(dino(query), query);
        assert_eq!(dino("encoder.layer.1.mlp.fc1.bias"), "encoder.layer.1.mlp.fc1.bias");
        assert_eq!(ModelType::Dinov3.on_disk("model.layer.2.norm1.bias").as_deref(), Some("layer.2.norm1.bias"));
        assert_eq!(ModelType::Dinov3.on_disk("embeddings.cls_token"), None);
    }
}
