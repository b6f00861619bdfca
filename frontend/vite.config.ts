// The page is built into the Python package, so that an installed manylens needs no Node.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "../src/manylens/web/static",
    emptyOutDir: true,
    target: "es2022",
    // A data: URL in a style would be a picture that the Content-Security-Policy has to allow; files are simpler.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    // `npm run dev` beside `manylens open OUT --port 8765`: open the address with its token once, then this one.
    proxy: { "/api": "http://127.0.0.1:8765" },
  },
});
