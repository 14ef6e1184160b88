//! Maps as PNG, made row by row.

use std::io::Write;

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

/// Encodes the rows that `fill` makes of a row's number and its pixels. `text` stands in the file. Errors say why only.
pub fn encode<T>(
    pixels: &[T],
    width: usize,
    (color, depth): (ColorType, BitDepth),
    text: &[(&str, String)],
    fill: impl Fn(usize, &[T], &mut Vec<u8>),
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut written = || -> Result<(), EncodingError> {
        let mut encoder = Encoder::new(&mut bytes, width as u32, (pixels.len() / width) as u32);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.set_compression(Compression::Fast);
        for (keyword, value) in text {
            encoder.add_text_chunk((*keyword).to_string(), value.clone())?;
        }
        let mut writer = encoder.write_header()?;
        let mut stream = writer.stream_writer()?;
        let mut row = Vec::new();
        for (y, pixels) in pixels.chunks_exact(width).enumerate() {
            row.clear();
            fill(y, pixels, &mut row);
            stream.write_all(&row)?;
        }
        stream.finish()?;
        writer.finish()
    };
    written().map_err(|e| e.to_string())?;
    Ok(bytes)
}
