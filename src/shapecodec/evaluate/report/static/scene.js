"use strict";
// Two meshes and one camera in one WebGL context: both panes are drawn with the same matrices, so they cannot drift apart.
const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in float error;
uniform mat4 view, projection;
out vec3 place, direction; out float amount;
void main() {
  vec4 p = view * vec4(position, 1.0);
  place = p.xyz; direction = mat3(view) * normal; amount = error;
  gl_Position = projection * p;
}`;
// The light of render/shade.py: three lamps that move with the camera, a sky above a darker ground, creases where a face leans
// more than 37 degrees from the interpolated normal.
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 place, direction; in float amount;
uniform vec3 stops[7]; uniform bool coloured; uniform float cut;
out vec4 colour;
vec3 linear(vec3 c) { return mix(c / 12.92, pow((c + 0.055) / 1.055, vec3(2.4)), step(0.04045, c)); }
vec3 encoded(vec3 c) { return mix(12.92 * c, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, c)); }
vec3 lamp(vec3 d, vec3 strength, vec3 n, vec3 eye, vec3 base) {
  d = normalize(d);
  float cosine = dot(n, d);
  float shine = cosine > 0.0 ? 0.06 * pow(max(dot(n, normalize(d + eye)), 0.0), 24.0) : 0.0;
  return strength * (base * max((cosine + 0.15) / 1.15, 0.0) + shine);
}
void main() {
  if (place.z > cut) discard;
  vec3 eye = normalize(-place);
  vec3 flat_ = normalize(cross(dFdx(place), dFdy(place)));
  if (dot(flat_, eye) < 0.0) flat_ = -flat_;
  vec3 smooth_ = dot(direction, direction) > 0.0 ? normalize(direction) : flat_;
  if (dot(smooth_, flat_) < 0.0) smooth_ = -smooth_;
  vec3 n = normalize(mix(flat_, smooth_, smoothstep(0.76, 0.84, dot(smooth_, flat_))));
  vec3 base = vec3(0.788, 0.796, 0.816);
  if (coloured) {
    float at = clamp(amount, 0.0, 1.0) * 6.0;
    int below = int(min(at, 5.0));
    base = mix(stops[below], stops[below + 1], at - float(below));
  }
  base = linear(base);
  vec3 light = base * mix(0.07, 0.20, 0.5 + 0.5 * n.y) + 0.10 * pow(1.0 - max(dot(n, eye), 0.0), 4.0);
  light += lamp(vec3(-0.50, 0.72, 0.48), vec3(0.98, 0.96, 0.92), n, eye, base);
  light += lamp(vec3(0.80, 0.15, 0.58), vec3(0.16, 0.18, 0.21), n, eye, base);
  light += lamp(vec3(0.10, 0.35, -0.93), vec3(0.22, 0.23, 0.25), n, eye, base);
  colour = vec4(encoded(clamp(light, 0.0, 1.0)), 1.0);
}`;

class Scene {
  constructor(canvas, stops) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: true });
    if (!this.gl) throw new Error("this browser offers no WebGL 2");
    this.stops = new Float32Array(stops.flat());
    this.panes = {};
    this.build();
  }

  build() {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    ["position", "normal", "error"].forEach((name, at) => gl.bindAttribLocation(program, at, name));
    gl.linkProgram(program);
    this.program = program;
    this.at = Object.fromEntries(["view", "projection", "stops", "coloured", "cut"].map((name) => [name, gl.getUniformLocation(program, name)]));
  }

  // Replaces both meshes; what was on the card before is freed.
  show(meshes) {
    const gl = this.gl;
    for (const pane of Object.values(this.panes)) {
      pane.buffers.forEach((buffer) => gl.deleteBuffer(buffer));
      gl.deleteVertexArray(pane.array);
    }
    this.panes = {};
    for (const [side, mesh] of Object.entries(meshes)) {
      const array = gl.createVertexArray(), buffers = [];
      gl.bindVertexArray(array);
      const give = (target, values) => {
        buffers.push(gl.createBuffer());
        gl.bindBuffer(target, buffers.at(-1));
        gl.bufferData(target, values, gl.STATIC_DRAW);
      };
      [[mesh.positions, 3, gl.FLOAT], [mesh.normals, 3, gl.FLOAT], [mesh.errors, 1, gl.UNSIGNED_BYTE]].forEach(([values, size, type], at) => {
        if (!values) return;
        give(gl.ARRAY_BUFFER, values);
        gl.enableVertexAttribArray(at);
        gl.vertexAttribPointer(at, size, type, type !== gl.FLOAT, 0, 0);
      });
      give(gl.ELEMENT_ARRAY_BUFFER, mesh.indices);
      gl.bindVertexArray(null);
      this.panes[side] = { array, buffers, count: mesh.indices.length, errors: Boolean(mesh.errors) };
    }
    this.frame(meshes.original.positions);
  }

  // How far to zoom in from the sphere so that the original fills a pane at this camera.
  fit(camera, p, aspect) {
    const { view, projection } = this.matrices({ ...camera, zoom: 1, pan: [0, 0] }, aspect);
    let most = 0.1;
    for (let i = 0; i < p.length; i += 3) {
      const at = [0, 1, 2].map((k) => view[k] * p[i] + view[4 + k] * p[i + 1] + view[8 + k] * p[i + 2] + view[12 + k]);
      most = Math.max(most, Math.abs((projection[0] * at[0]) / at[2]), Math.abs((projection[5] * at[1]) / at[2]));
    }
    return Math.min(0.86 / most, 1.8);
  }

  // The sphere that the camera looks at: the original's box.
  frame(p) {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (let i = 0; i < p.length; i++) {
      low[i % 3] = Math.min(low[i % 3], p[i]);
      high[i % 3] = Math.max(high[i % 3], p[i]);
    }
    this.centre = low.map((value, k) => (value + high[k]) / 2);
    this.radius = Math.hypot(...low.map((value, k) => high[k] - value)) / 2 || 1;
  }

  // Whether the panes stand one above the other.
  get stacked() { return this.canvas.clientHeight > this.canvas.clientWidth; }

  // Width over height of a pane.
  aspect(swiping) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return (swiping ? width : this.stacked ? 2 * width : width / 2) / height;
  }

  // camera: {yaw, pitch, zoom, pan [x, y]}; look: {coloured, cut 0 to 1, swipe null or 0 to 1}
  draw(camera, look) {
    const gl = this.gl, ratio = Math.min(devicePixelRatio || 1, 2);
    const width = Math.round(this.canvas.clientWidth * ratio), height = Math.round(this.canvas.clientHeight * ratio);
    if (!width || !height || gl.isContextLost()) return;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.enable(gl.SCISSOR_TEST);
    gl.useProgram(this.program);
    const stacked = look.swipe === null && this.stacked, half = stacked ? height >> 1 : width >> 1;
    let boxes; // viewport and scissor of each pane, from the lower left corner
    if (look.swipe !== null) {
      const edge = Math.round(width * look.swipe);
      boxes = { original: [[0, 0, width, height], [0, 0, edge, height]], reconstruction: [[0, 0, width, height], [edge, 0, width - edge, height]] };
    } else if (stacked) {
      boxes = { original: [[0, height - half, width, half]], reconstruction: [[0, 0, width, half]] };
    } else {
      boxes = { original: [[0, 0, half, height]], reconstruction: [[width - half, 0, half, height]] };
    }
    for (const [side, pane] of Object.entries(this.panes)) {
      const [viewport, scissor = viewport] = boxes[side];
      gl.viewport(...viewport);
      gl.scissor(...scissor);
      const { view, projection, distance } = this.matrices(camera, viewport[2] / viewport[3]);
      gl.uniformMatrix4fv(this.at.view, false, view);
      gl.uniformMatrix4fv(this.at.projection, false, projection);
      gl.uniform3fv(this.at.stops, this.stops);
      gl.uniform1i(this.at.coloured, look.coloured && pane.errors ? 1 : 0);
      gl.uniform1f(this.at.cut, look.cut > 0 ? -distance + this.radius * (1 - 2 * look.cut) : 1e9);
      gl.bindVertexArray(pane.array);
      gl.drawElements(gl.TRIANGLES, pane.count, gl.UNSIGNED_INT, 0);
    }
    gl.bindVertexArray(null);
  }

  // A long lens, so that proportions stay readable; the sphere fits the shorter side of a pane.
  matrices(camera, aspect) {
    const half = (12 * Math.PI) / 180, tangent = Math.tan(half) / Math.min(1, aspect);
    const distance = (this.radius * 1.04) / Math.sin(half) / camera.zoom;
    const [sy, cy, sp, cp] = [Math.sin(camera.yaw), Math.cos(camera.yaw), Math.sin(camera.pitch), Math.cos(camera.pitch)];
    const right = [cy, 0, -sy], up = [-sp * sy, cp, -sp * cy], back = [cp * sy, sp, cp * cy];
    const dot = (a) => a[0] * this.centre[0] + a[1] * this.centre[1] + a[2] * this.centre[2];
    const shift = camera.pan.map((value) => value * this.radius);
    const view = [
      right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      -dot(right) + shift[0], -dot(up) + shift[1], -dot(back) - distance, 1,
    ];
    const near = Math.max(distance - 3 * this.radius, distance / 200), far = distance + 3 * this.radius;
    const projection = [
      1 / (tangent * aspect), 0, 0, 0, 0, 1 / tangent, 0, 0,
      0, 0, (near + far) / (near - far), -1, 0, 0, (2 * near * far) / (near - far), 0,
    ];
    return { view, projection, distance };
  }
}
