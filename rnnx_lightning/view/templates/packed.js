"use strict";
// The data and the charts' library stand in the page as base64 of gzip.
const bytes = (text, kind) => new kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);

async function unpacked(id) {
  const packed = new Blob([bytes(document.getElementById(id).textContent, Uint8Array)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const shown = (value) => String(Number(value.toPrecision(4)));
