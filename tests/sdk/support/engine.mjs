// The published TypeScript engine, and the shapes that its results have on the wire (API 3.6, AE 2 and 9).

import { sdk } from './sdk.mjs';

const { EvaluationEngine, topologicalSort } = sdk('@amplitude/experiment-core');
const { convertUserToEvaluationContext } = sdk('@amplitude/experiment-node-server/dist/src/util/user.js');

/** What `engine` makes of a user; `keys` undefined or empty = all flags. */
export function evaluate(flags, user, keys, engine = new EvaluationEngine()) {
  const byKey = Object.fromEntries(flags.map((flag) => [flag.key, flag]));
  const wanted = keys?.length ? keys : undefined;
  return engine.evaluate(convertUserToEvaluationContext(user), topologicalSort(byKey, wanted));
}

/** An engine result as `/sdk/v2/vardata` answers it. */
export function v2(results) {
  return JSON.parse(JSON.stringify(results));
}

/** An engine result as `/v1/vardata` and `/sdk/vardata` answer it: no default and no undeployed variants. */
export function v1(results) {
  const kept = Object.entries(v2(results)).filter(
    ([, variant]) => variant.metadata?.default !== true && variant.metadata?.deployed !== false,
  );
  return Object.fromEntries(
    kept.map(([key, variant]) => {
      const experiment = variant.metadata?.experimentKey;
      return [key, experiment === undefined ? variant : { ...variant, expKey: experiment }];
    }),
  );
}

/**
 * The same engine with Kotlin's rules where the two differ in ways that a generated case may meet (AE 11).
 *
 * Row 1: a null property with `set is not` and `regex does not match`; row 2: a pattern matches the whole value;
 * rows 3 and 20: text is no number; row 9: empty strings stay in a list; row 26: -0 is less than 0; row 29: sets, not lists, are compared by
 * size; rows 31 to 33: a selector walks through members only.
 */
export class KotlinRuled extends EvaluationEngine {
  matchCondition(target, condition) {
    const value = walk(target, condition.selector);
    if (value === undefined) return this.matchNull(condition.op, condition.values);
    return super.matchCondition(target, condition);
  }

  matchNull(op, values) {
    return op === 'set is not' || op === 'regex does not match' || super.matchNull(op, values);
  }

  matchesRegex(value, patterns) {
    return patterns.some((pattern) => new RegExp(`^(?:${pattern})$`, 'u').test(value));
  }

  parseNumber(text) {
    const trimmed = text.trim();
    const number = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(trimmed) ? Number(trimmed) : NaN;
    return Number.isNaN(number) ? undefined : number;
  }

  comparator(left, op, right) {
    const areZeros = left === 0 && right === 0;
    const order = (zero) => (Object.is(zero, -0) ? -1 : 0);
    return areZeros ? super.comparator(order(left), op, order(right)) : super.comparator(left, op, right);
  }

  coerceStringArray(value) {
    const elements = Array.isArray(value) ? value : parsedList(String(value));
    return elements?.map((element) => this.coerceString(element)).filter((text) => text !== undefined);
  }

  matchesSetContainsAll(values, wanted) {
    return super.matchesSetContainsAll([...new Set(values)], [...new Set(wanted)]);
  }
}

function parsedList(text) {
  if (!text.startsWith('[')) return undefined;
  try {
    const parsed = JSON.parse(text);
    return Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

function walk(target, selector) {
  let value = target;
  for (const name of selector) {
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    value = isObject && Object.hasOwn(value, name) ? value[name] : undefined;
  }
  return selector.length > 0 ? value ?? undefined : undefined;
}
