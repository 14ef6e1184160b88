//! Hashes to compare machines and files by.

/// FNV-1a, 64 bits, over the floats' bits in order: equal on two machines exactly if every bit is.
pub fn digest(values: &[f32]) -> u64 {
    values.iter().fold(FNV_START, |hash, x| fnv1a(hash, u64::from(x.to_bits())))
}

/// FNV-1a, 64 bits, over bytes as little-endian words of 64 bits, the last zero-padded: the file's checksum.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(FNV_START, |hash, word| fnv1a(hash, u64::from_le_bytes(*word)));
    if rest.is_empty() {
        return hash;
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fnv1a(hash, u64::from_le_bytes(last))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv1a(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_signs_of_zero_apart() {
        assert_ne!(digest(&[0.0]), digest(&[-0.0]));
        assert_eq!(checksum(&[1, 2, 3]), checksum(&[1, 2, 3, 0]));
        assert_ne!(checksum(&[1, 2, 3]), checksum(&[1, 2, 4]));
    }
}
