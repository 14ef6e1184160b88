//! `convert` of PyTorch's own files, as a user types it.

use std::path::Path;

use crate::common::{run, stdout};

#[test]
fn a_training_checkpoint_alone_is_enough() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, model) = (scratch.path().join("model_best.pth.tar"), scratch.path().join("model.gguf"));
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torch/model_best.pth.tar");
    std::fs::copy(fixture, &source).unwrap();
    let (source, model) = (source.display(), model.display());

    let plain = stdout(&format!("convert {source} -o {model}"));
    assert!(plain.contains("note: the weights are state_dict; left out: state_dict_ema (--ema"), "{plain}");
    assert!(plain.contains("note: the architecture is vit_tiny_patch16_224, as the file itself says"), "{plain}");
    let averaged = stdout(&format!("convert {source} -o {model} --ema"));
    assert!(averaged.contains("note: the weights are state_dict_ema; left out: state_dict\n"), "{averaged}");
    let inspected = stdout(&format!("inspect {model}"));
    assert!(inspected.contains("vit_tiny_patch16_224"), "{inspected}");

    let refused = run(&format!("convert {source} -o {model} --arch vit_tiny_patch16_224 --num-classes 9"));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && error.contains("--num-classes 7 fits"), "{error}");
}
