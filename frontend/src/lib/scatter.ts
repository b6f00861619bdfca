// Points on a canvas: WebGL where there is one, plain 2-D where not. Draws on request, never by itself.

export interface Camera {
  x: number; // the middle, in the plane of the points
  y: number;
  scale: number; // pixels of the page for one unit of the plane
}

export interface Scatter {
  /** points: x, y pairs. colors: red, green, blue, alpha bytes of each; alpha 255 is drawn large (chosen). */
  put(points: Float32Array, colors: Uint8Array): void;
  paint(colors: Uint8Array): void;
  draw(camera: Camera, size: number): void;
  resize(width: number, height: number): void;
  free(): void;
  readonly gpu: boolean;
}

const VERTEX = `#version 300 es
in vec2 at; in vec4 color; uniform vec2 middle; uniform vec2 zoom; uniform float size; out vec4 ink;
void main() {
  gl_Position = vec4((at - middle) * zoom, 0.0, 1.0);
  bool chosen = color.a > 0.99;
  gl_PointSize = chosen ? size * 1.7 : size;
  ink = vec4(color.rgb, chosen ? 1.0 : color.a);
}`;
const FRAGMENT = `#version 300 es
precision mediump float; in vec4 ink; out vec4 told;
void main() {
  vec2 off = gl_PointCoord - 0.5;
  if (dot(off, off) > 0.25) discard;
  told = vec4(ink.rgb * ink.a, ink.a);
}`;

export function scatter(canvas: HTMLCanvasElement): Scatter {
  const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, powerPreference: "low-power" });
  return gl ? withGpu(canvas, gl) : plain(canvas);
}

function withGpu(canvas: HTMLCanvasElement, gl: WebGL2RenderingContext): Scatter {
  const shader = (kind: number, source: string): WebGLShader => {
    const made = gl.createShader(kind)!;
    gl.shaderSource(made, source);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, VERTEX));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, FRAGMENT));
  gl.linkProgram(program);
  gl.useProgram(program);
  const places = gl.createBuffer();
  const inks = gl.createBuffer();
  let many = 0;
  const attribute = (name: string, buffer: WebGLBuffer, width: number, kind: number, normal: boolean) => {
    const at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, width, kind, normal, 0, 0);
  };
  const uniform = (name: string) => gl.getUniformLocation(program, name);
  const [middle, zoom, size] = [uniform("middle"), uniform("zoom"), uniform("size")];
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const paint = (colors: Uint8Array) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, inks);
    gl.bufferData(gl.ARRAY_BUFFER, colors, gl.DYNAMIC_DRAW);
  };
  return {
    gpu: true,
    put(points, colors) {
      many = points.length / 2;
      gl.bindBuffer(gl.ARRAY_BUFFER, places);
      gl.bufferData(gl.ARRAY_BUFFER, points, gl.STATIC_DRAW);
      attribute("at", places, 2, gl.FLOAT, false);
      paint(colors);
      attribute("color", inks, 4, gl.UNSIGNED_BYTE, true);
    },
    paint,
    draw(camera, pixels) {
      const ratio = canvas.width / Math.max(1, canvas.clientWidth);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(middle, camera.x, camera.y);
      gl.uniform2f(zoom, (camera.scale * ratio * 2) / canvas.width, (camera.scale * ratio * 2) / canvas.height);
      gl.uniform1f(size, pixels * ratio);
      gl.drawArrays(gl.POINTS, 0, many);
    },
    resize(width, height) {
      canvas.width = width;
      canvas.height = height;
    },
    free() {
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

function plain(canvas: HTMLCanvasElement): Scatter {
  const context = canvas.getContext("2d")!;
  let points = new Float32Array();
  let colors = new Uint8Array();
  return {
    gpu: false,
    put(given, inks) {
      points = new Float32Array(given);
      colors = new Uint8Array(inks);
    },
    paint(inks) {
      colors = new Uint8Array(inks);
    },
    // Straight into the pixels: a call of fillRect for each of 100,000 points takes five times as long.
    draw(camera, pixels) {
      const { width, height } = canvas;
      const ratio = width / Math.max(1, canvas.clientWidth);
      const sheet = context.createImageData(width, height);
      const ink = new Uint32Array(sheet.data.buffer);
      const colored = new Uint32Array(colors.buffer, colors.byteOffset, colors.length / 4);
      const scale = camera.scale * ratio;
      for (let at = 0; at < colored.length; at++) {
        const chosen = colors[at * 4 + 3] === 255;
        const side = Math.max(1, Math.round(pixels * ratio * (chosen ? 1.5 : 0.9)));
        const left = Math.round(width / 2 + (points[at * 2]! - camera.x) * scale - side / 2);
        const top = Math.round(height / 2 - (points[at * 2 + 1]! - camera.y) * scale - side / 2);
        if (left < 0 || top < 0 || left + side > width || top + side > height) continue;
        for (let y = top; y < top + side; y++) ink.fill(colored[at]!, y * width + left, y * width + left + side);
      }
      context.putImageData(sheet, 0, 0);
    },
    resize(width, height) {
      canvas.width = width;
      canvas.height = height;
    },
    free() {},
  };
}
