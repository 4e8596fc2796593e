//! Results of edged in Rust: prints each with the mean brightness of its very frame, read in shared memory.
//!
//!     cargo run --release -- ipc:///run/edged/results.ipc 10      (libzmq3-dev)

use serde::Deserialize;
use std::sync::atomic::{fence, AtomicU64, Ordering};

const MAGIC: &[u8] = b"EDGEDRNG"; // the layout is described in edged_ring.h
const LAYOUT: u64 = 3;
const PAGE: usize = 4096;
const FIRST_SLOT: usize = 24 * 8;

#[derive(Deserialize)]
struct Object {
    label: String,
    score: f64,
}

#[derive(Deserialize)]
struct Ring {
    name: String,
    slot: usize,
    seq: u64,
}

#[derive(Deserialize)]
struct Result {
    camera: String,
    frame: u64,
    variant: String,
    age_ms: f64,
    ring: Ring,
    #[serde(default)]
    detections: Vec<Object>,
}

/// None: the frame is gone.
fn brightness(frame: &Ring) -> Option<f64> {
    let file = std::fs::File::open(format!("/dev/shm/{}", frame.name)).ok()?;
    let map = unsafe { memmap2::Mmap::map(&file) }.ok()?;
    let word = |n: usize| u64::from_ne_bytes(map[n * 8..n * 8 + 8].try_into().unwrap());
    if map.len() < PAGE || &map[..8] != MAGIC || word(1) != LAYOUT || frame.slot as u64 >= word(2) {
        return None;
    }
    let (pitch, pixels) = (word(3) as usize, (word(4) * word(5)) as usize);
    let bytes = if word(6) == 1 {
        pixels * 3
    } else {
        pixels * 3 / 2
    };
    let seq = unsafe { &*(map.as_ptr().add(FIRST_SLOT + frame.slot * 64) as *const AtomicU64) };
    let picture = map.get(PAGE + frame.slot * pitch..PAGE + frame.slot * pitch + bytes)?;
    if seq.load(Ordering::Acquire) != frame.seq {
        return None;
    }
    let sum: u64 = picture.iter().map(|&value| u64::from(value)).sum();
    fence(Ordering::Acquire);
    (seq.load(Ordering::Acquire) == frame.seq).then(|| sum as f64 / bytes as f64)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments
        .next()
        .unwrap_or("ipc:///run/edged/results.ipc".into());
    let mut left: i64 = arguments.next().map_or(Ok(-1), |count| count.parse())?;
    let socket = zmq::Context::new().socket(zmq::SUB)?;
    socket.set_subscribe(b"result/")?;
    socket.connect(&endpoint)?;
    while left != 0 {
        let message = socket.recv_multipart(0)?; // the topic, the payload
        let result: Result = rmp_serde::from_slice(&message[1])?;
        let mean = brightness(&result.ring).unwrap_or(-1.0);
        print!(
            "{} {} {} {:.1} ms, mean {mean:.6}",
            result.camera, result.frame, result.variant, result.age_ms
        );
        for object in &result.detections {
            print!(" {} {:.2}", object.label, object.score);
        }
        println!();
        left -= 1;
    }
    Ok(())
}
