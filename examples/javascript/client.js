// Results of edged in JavaScript: prints each with the mean brightness of its very frame, read in shared memory.
//   npm install && node client.js ipc:///run/edged/results.ipc 10
import { closeSync, openSync, readSync } from "node:fs";
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const PAGE = 4096; // the layout is described in edged_ring.h
const LAYOUT = 3n;

function read(file, bytes, at) {
  const buffer = Buffer.alloc(bytes);
  return readSync(file, buffer, 0, bytes, at) === bytes ? buffer : Buffer.alloc(bytes);
}

function brightness({ name, slot, seq }) { // null: the frame is gone
  let file;
  try {
    file = openSync(`/dev/shm/${name}`, "r");
  } catch {
    return null;
  }
  try {
    const head = new BigUint64Array(read(file, PAGE, 0).buffer.slice(0, PAGE));
    if (Buffer.from(head.buffer, 0, 8).toString() !== "EDGEDRNG" || head[1] !== LAYOUT) return null;
    const [pitch, width, height, format] = [...head.slice(3, 7)].map(Number);
    const intact = () => read(file, 8, (24 + 8 * slot) * 8).readBigUInt64LE() === BigInt(seq);
    if (!intact()) return null;
    const pixels = read(file, format === 1 ? width * height * 3 : (width * height * 3) / 2, PAGE + slot * pitch);
    return intact() ? pixels.reduce((sum, value) => sum + value, 0) / pixels.length : null;
  } finally {
    closeSync(file);
  }
}

const socket = new Subscriber();
socket.subscribe("result/");
socket.connect(process.argv[2] ?? "ipc:///run/edged/results.ipc");
let left = Number(process.argv[3] ?? Infinity);
for await (const [, payload] of socket) {
  const result = decode(payload);
  const objects = (result.detections ?? []).map(({ label, score }) => `${label} ${score.toFixed(2)}`);
  const { camera, frame, variant, age_ms, ring } = result;
  console.log(camera, frame, variant, age_ms.toFixed(1), "ms, mean", brightness(ring) ?? -1, ...objects);
  if (--left <= 0) break;
}
socket.close();
