"use strict";
// The reader of view meshes; view_mesh.py and mesh_code.py say what the bytes are.
async function readView(id) {
  const element = document.getElementById(id);
  const packed = Uint8Array.from(atob(element.textContent), (c) => c.charCodeAt(0));
  const header = new DataView(packed.buffer, 0, 36), flags = header.getUint8(5);
  if (header.getUint32(0) !== 0x5343564d || header.getUint8(4) !== 1) throw new Error("not a view mesh of version 1");
  const count = header.getUint32(8, true), faces = header.getUint32(12, true);
  const low = [16, 20, 24].map((at) => header.getFloat32(at, true)), scale = header.getFloat32(28, true);
  if (typeof DecompressionStream === "undefined") throw new Error("this browser has no DecompressionStream (2023 or newer)");
  const stream = new Blob([packed.subarray(36)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const sizes = new DataView(bytes.buffer, 0, 12);
  let at = 12;
  const [fans, first, second] = [0, 4, 8].map((place) => {
    at += sizes.getUint32(place, true);
    return integers(bytes, at - sizes.getUint32(place, true));
  });
  const places = new Int32Array(3 * count), indices = new Uint32Array(3 * faces);
  let seen = 0, met = 0; // vertices so far
  const meet = (expected) => { // the next vertex, at its residual from where it is expected
    for (let axis = 0; axis < 3; axis++) {
      const place = at + 2 * count * axis + met, code = bytes[place] | (bytes[place + count] << 8);
      places[3 * met + axis] = expected(axis) + (code & 1 ? -(code >> 1) - 1 : code >> 1);
    }
    return met++;
  };
  for (let v = 0; seen < 3 * faces; v++) {
    if (v === met) meet((axis) => (v ? places[3 * (v - 1) + axis] : 0));
    let before = -1, last = -1;
    for (let left = fans(); left > 0; left--) {
      const code = first(), goesOn = code === 0;
      const a = goesOn ? last : code === 1 ? meet((axis) => places[3 * v + axis]) : v + code - 1, step = second();
      const b = step ? v + step : meet((axis) => places[3 * a + axis] + (goesOn ? places[3 * v + axis] - places[3 * before + axis] : 0));
      indices.set([v, a, b], seen);
      [before, last, seen] = [a, b, seen + 3];
    }
  }
  const positions = Float32Array.from(places, (q, i) => low[i % 3] + scale * q);
  let errors = null;
  if (flags & 1) {
    errors = new Uint8Array(count);
    for (let i = 0, level = 0; i < count; i++) errors[i] = level = (level + bytes[at + 6 * count + i]) & 255;
  }
  return {
    positions, indices, errors, faces, normals: vertexNormals(positions, indices),
    largest: header.getFloat32(32, true), unit: flags & 2 ? "voxels" : "",
  };
}

// A stream of integers of seven bits a byte.
function integers(bytes, at) {
  return () => {
    let value = 0, shift = 0, byte;
    do {
      byte = bytes[at++];
      value |= (byte & 127) << shift;
      shift += 7;
    } while (byte > 127);
    return value;
  };
}

// Sums of face normals, whose lengths are twice the areas.
function vertexNormals(p, indices) {
  const normals = new Float32Array(p.length);
  for (let f = 0; f < indices.length; f += 3) {
    const [a, b, c] = [3 * indices[f], 3 * indices[f + 1], 3 * indices[f + 2]];
    const [ux, uy, uz] = [p[b] - p[a], p[b + 1] - p[a + 1], p[b + 2] - p[a + 2]];
    const [vx, vy, vz] = [p[c] - p[a], p[c + 1] - p[a + 1], p[c + 2] - p[a + 2]];
    const normal = [uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx];
    for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += normal[k];
  }
  for (let i = 0; i < normals.length; i += 3) {
    const size = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
    for (let k = 0; k < 3; k++) normals[i + k] /= size;
  }
  return normals;
}
