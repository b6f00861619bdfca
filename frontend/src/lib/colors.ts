// One color a cluster, for the map alone. Even steps of hue at one lightness, so that none shouts; red is left out,
// because red means doubt on this page.

/** Red, green, blue from 0 to 255 of a color in OKLCH (Ottosson 2020). */
function rgb(lightness: number, chroma: number, hue: number): [number, number, number] {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((one) => {
    const light = Math.min(1, Math.max(0, one));
    return Math.round(255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055));
  }) as [number, number, number];
}

const HUES = { first: 52, width: 318 }; // from 52° round to 10°: without the reds

export function colorOf(place: number, many: number, dark: boolean): [number, number, number] {
  // Few clusters: even steps. Many: the golden ratio, which keeps neighbours in the list far apart, with two lightnesses.
  const turn = many <= 10 ? place / many : (place * 0.61803398875) % 1;
  const light = (dark ? 0.74 : 0.62) + (many > 10 ? (place % 2 ? 0.07 : -0.07) : 0);
  return rgb(light, many > 10 ? 0.12 : 0.135, hueOf(turn));
}

const hueOf = (turn: number): number => (HUES.first + ((turn + 0.62) % 1) * HUES.width) % 360; // .62: the first is blue
