//! Diagonals that are folded into parts beside them before anything is packed. A diagonal that goes into a matrix is
//! folded when the matrix is packed: in its scales, where it has them (`pack`).

use vitlet::Config;

use crate::diagonal;
use crate::network::Network;

/// LayerNorm's affine part of every branch into the branch's first matrix.
pub(crate) fn norms(network: &mut Network) {
    let first = network.blocks.iter_mut().filter_map(|block| Some((block.norm1.as_mut()?, &mut block.qkv)));
    first.for_each(|(norm, qkv)| diagonal::fold_norm(norm, qkv));
    let of_blocks = network.blocks.iter_mut().map(|block| &mut block.mlp);
    let mlps = of_blocks.chain(network.conv_blocks.iter_mut().map(|block| &mut block.mlp));
    for (norm, up) in mlps.filter_map(|mlp| Some((mlp.norm.as_mut()?, &mut mlp.up))) {
        diagonal::fold_norm(norm, up);
    }
}

/// Gammas of branches that do not end in a matrix over channels, where the file does not keep them: XCiT's norm of the
/// patches and its last convolution, ResMLP's matrix over tokens. A channel has no weights of its own in that matrix:
/// under `fold-weights`, too, gamma is beside them.
pub(crate) fn vectors(network: &mut Network, config: &Config) {
    if config.keeps_gamma() {
        return;
    }
    for block in &mut network.blocks {
        if let (Some(norm), Some(gamma)) = (&mut block.patches_norm, &block.gamma1) {
            diagonal::scale_norm(norm, gamma);
        }
        if let Some(local) = &mut block.local
            && let Some(gamma) = &local.gamma
        {
            diagonal::scale_kernels(&mut local.second, gamma);
        }
    }
    for block in &mut network.mixer_blocks {
        if let Some(gamma) = &block.gamma1 {
            diagonal::scale_channels(&mut block.mixer, gamma);
        }
    }
}
