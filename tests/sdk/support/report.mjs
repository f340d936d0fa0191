// Checks: each is a sentence that is true or not, printed as it is known.

import { isDeepStrictEqual, inspect } from 'node:util';

let passed = 0;
const failed = [];

/** Prints a heading. */
export function chapter(title) {
  console.log(`\n${title}`);
}

/** Runs one check; `body` throws when the sentence is not true. */
export async function check(sentence, body) {
  const began = performance.now();
  try {
    const note = await body();
    passed += 1;
    const took = Math.round(performance.now() - began);
    console.log(`  ok    ${sentence} (${note ? `${note}, ` : ''}${took} ms)`);
  } catch (error) {
    failed.push(sentence);
    const text = error instanceof Failure ? error.message : error?.stack ?? String(error);
    console.log(`  FAIL  ${sentence}\n        ${text.replaceAll('\n', '\n        ')}`);
  }
}

class Failure extends Error {}

/** Fails the check unless `truth`. */
export function expect(truth, message) {
  if (!truth) throw new Failure(message);
}

/** Fails the check unless both are the same, and says where they begin to differ. */
export function same(actual, wanted, about = 'they differ') {
  if (!isDeepStrictEqual(plain(actual), plain(wanted))) {
    const [left, right] = narrowed(plain(actual), plain(wanted));
    throw new Failure(`${about}\n  got:    ${show(left)}\n  wanted: ${show(right)}`);
  }
}

// Class instances of an SDK become what they say.
function plain(value) {
  return value === undefined ? undefined : JSON.parse(JSON.stringify(value));
}

// The members that differ, if both are objects.
function narrowed(left, right) {
  if (![left, right].every((side) => side && typeof side === 'object' && !Array.isArray(side))) return [left, right];
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])];
  const differing = keys.filter((key) => !isDeepStrictEqual(left[key], right[key]));
  const only = (side) => Object.fromEntries(differing.filter((key) => key in side).map((key) => [key, side[key]]));
  return [only(left), only(right)];
}

function show(value) {
  return inspect(value, { depth: 8, breakLength: 150 }).slice(0, 2000);
}

/** Waits until `look` gives something true, at most `seconds`; fails the check with `what` when it does not. */
export async function eventually(what, look, seconds = 10) {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    if (performance.now() > end) throw new Failure(`${what}: not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Prints the closing line; gives the exit code. */
export function close() {
  if (failed.length) console.log(`\nFailed:\n${failed.map((sentence) => `  ${sentence}`).join('\n')}`);
  console.log(`\n${passed} passed, ${failed.length} failed`);
  return failed.length || !passed ? 1 : 0;
}
