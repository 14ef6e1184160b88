//! Network families: forward passes that read like their papers.

pub(crate) mod vit;
