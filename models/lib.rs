//! The model that vitlet's program and board images have built in, as bytes. A program holds only the statics that it
//! names.
//!
//! `cifar10-vit-layerscale/CARD.md` describes the model, `cifar10-vit-layerscale/pictures/README.md` the pictures and
//! their licences.
#![no_std]
#![forbid(unsafe_code)]

/// A file of `cifar10-vit-layerscale/`.
macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("cifar10-vit-layerscale/", $name))
    };
}

/// The int8 model file, on a 64-byte boundary: for `vitlet::Model::parse`.
pub static MODEL: &[u8] = vitlet::include_model!("cifar10-vit-layerscale/model.gguf");

/// The checkpoint from which [`MODEL`] was converted, as timm lays it out, and the [`pictures`]: paths within a
/// directory and the files' bytes. An int8 model has no gammas left to study; the checkpoint has them.
pub static CHECKPOINT: [(&str, &[u8]); 8] = [
    ("config.json", file!("config.json")),
    ("model.safetensors", file!("model.safetensors")),
    ("pictures/astronaut.jpg", pictures::ASTRONAUT),
    ("pictures/camera.jpg", pictures::CAMERA),
    ("pictures/chelsea.jpg", pictures::CHELSEA),
    ("pictures/coffee.jpg", pictures::COFFEE),
    ("pictures/horse.jpg", pictures::HORSE),
    ("pictures/rocket.jpg", pictures::ROCKET),
];

/// Sample pictures, JPEG.
pub mod pictures {
    /// An astronaut before a model of the space shuttle.
    pub static ASTRONAUT: &[u8] = file!("pictures/astronaut.jpg");
    /// A man with a camera, greyscale.
    pub static CAMERA: &[u8] = file!("pictures/camera.jpg");
    /// A cat.
    pub static CHELSEA: &[u8] = file!("pictures/chelsea.jpg");
    /// A cup of coffee.
    pub static COFFEE: &[u8] = file!("pictures/coffee.jpg");
    /// The silhouette of a horse.
    pub static HORSE: &[u8] = file!("pictures/horse.jpg");
    /// The launch of a rocket.
    pub static ROCKET: &[u8] = file!("pictures/rocket.jpg");
}
