// Messages of the page. English is the catalogue; another language has the same keys, which the type checker holds.
import { de } from "./words.de";
import { en, type Messages } from "./words.en";

export type Language = "en" | "de";
export const LANGUAGES: Record<Language, string> = { en: "English", de: "Deutsch" };
const CATALOGUES: Record<Language, Messages> = { en, de };
const KEPT = "manylens-language";

function usual(): Language {
  const kept = localStorage.getItem(KEPT);
  if (kept === "en" || kept === "de") return kept;
  return navigator.language.toLowerCase().startsWith("de") ? "de" : "en";
}

const chosen = $state<{ language: Language }>({ language: usual() });

export const words = {
  get language(): Language {
    return chosen.language;
  },
  set language(language: Language) {
    chosen.language = language;
    localStorage.setItem(KEPT, language);
  },
};

/** The message of a key in the chosen language: a text, or a function of what it tells. */
export function t<K extends keyof Messages>(key: K): Messages[K] {
  return CATALOGUES[chosen.language][key];
}

export const number = (value: number): string => value.toLocaleString(chosen.language);
/** A confidence as a whole percentage: what is not certain is never called 100% sure. */
export const sureness = (share: number): string => percent(share < 1 ? Math.min(share, 0.99) : share, 0);

/** A share as a percentage: whole, or with one decimal below ten. */
export const percent = (share: number, decimals = share < 0.1 && share > 0 ? 1 : 0): string =>
  share.toLocaleString(chosen.language, { style: "percent", minimumFractionDigits: decimals, maximumFractionDigits: decimals });
