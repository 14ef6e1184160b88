//! The decoders on thousands of broken pictures.

#[path = "../../tests/program/mutate.rs"]
mod mutate;

use super::decode;

#[test]
fn mutated_pictures_are_decoded_or_refused() {
    decode_or_refuse(3000);
}

#[test]
#[ignore = "takes minutes without optimisation"]
fn many_mutated_pictures_are_decoded_or_refused() {
    decode_or_refuse(20_000);
}

fn decode_or_refuse(count: u64) {
    let seeds = mutate::seeds();
    for (ending, bytes) in &seeds {
        assert!(decode(bytes).is_ok(), "{ending}: {:?}", decode(bytes).err());
    }
    let (mut decoded, mut panics) = (0, 0);
    for number in 0..count {
        let (_, bytes) = mutate::mutate(&seeds, number);
        match decode(&bytes) {
            Ok(picture) => {
                assert_eq!(picture.data.len() as u64, 3 * u64::from(picture.width) * u64::from(picture.height));
                decoded += 1;
            }
            Err(why) => {
                assert!(!why.is_empty() && !why.contains('\n'), "{number}: {why}");
                panics += u64::from(why.contains("the decoder gave up"));
            }
        }
    }
    crate::output::note(&format!("{count} pictures: {decoded} decoded, {panics} panics of a decoder"));
    assert!(decoded > count / 10, "damage is too heavy to reach the decoders: {decoded}");
}
