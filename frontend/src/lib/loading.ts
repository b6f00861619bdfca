// Thumbnails in turn: few at a time, those in sight first, none that has left the page. Without it a quick scroll asks for
// thousands of pictures that nobody will see, and the one in sight waits behind them.

const AT_ONCE = 8; // a browser opens six connections to a server; two more wait at its door

interface Wish {
  image: HTMLImageElement;
  source: string;
  seen: () => boolean;
}

const waiting = new Set<Wish>();
const underWay = new Set<Wish>();

function next(): void {
  while (underWay.size < AT_ONCE && waiting.size) {
    let wish: Wish | undefined;
    for (const one of waiting) {
      if (!wish || one.seen()) wish = one;
      if (one.seen()) break;
    }
    waiting.delete(wish!);
    underWay.add(wish!);
    wish!.image.src = wish!.source;
  }
}

/** For `{@attach}`: the picture is fetched when its turn comes. */
export function inTurn(source: string, seen: () => boolean): (image: HTMLImageElement) => () => void {
  return (image) => {
    const wish: Wish = { image, source, seen };
    const done = () => {
      if (underWay.delete(wish)) next();
    };
    image.addEventListener("load", done);
    image.addEventListener("error", done);
    waiting.add(wish);
    queueMicrotask(next); // when all tiles of this turn are in the page, so that those in sight are known
    return () => {
      image.removeEventListener("load", done);
      image.removeEventListener("error", done);
      waiting.delete(wish);
      if (underWay.has(wish)) {
        image.removeAttribute("src");
        done();
      }
    };
  };
}
