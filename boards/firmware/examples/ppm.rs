//! Writes a JPEG as a binary PPM, with the pixels that the program and the images see:
//! `cargo run -p vitlet-firmware --example ppm -- picture.jpg picture.ppm`.

use std::error::Error;
use std::io::Write;

fn main() -> Result<(), Box<dyn Error>> {
    let [jpeg, ppm] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: ppm JPEG PPM")?;
    let picture = vitlet_firmware::decode(&std::fs::read(jpeg)?)?;
    let mut out = std::fs::File::create(ppm)?;
    write!(out, "P6\n{} {}\n255\n", picture.width, picture.height)?;
    out.write_all(&picture.data)?;
    Ok(())
}
