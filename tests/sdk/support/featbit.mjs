// FeatBit on loopback: its flags, and how the checks and the fake server agree on who gets what.

import { createHash } from 'node:crypto';

/** The environment: its id, and one secret of each kind. */
export const SECRETS = {
  server: 'gpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w',
  client: 'hpnOV3wI3kKAO9q9viC0wQWdKZrVAf2U6gAnxl4lSH3w',
};
export const ENV = 'ad99d259-1f50-4ed9-a002-7c65e25487df';

const DIGITS = 'QBWSPHDXZU';

/** The secret and the time of a streaming token (FB 2.2). */
export function decodeToken(token) {
  const digits = (text) => [...text].map((letter) => DIGITS.indexOf(letter)).join('');
  const [start, length, rest] = [Number(digits(token.slice(0, 3))), Number(digits(token.slice(3, 5))), token.slice(5)];
  return { secret: rest.slice(0, start) + rest.slice(start + length), ms: Number(digits(rest.slice(start, start + length))) };
}

function id(text) {
  const hex = createHash('md5').update(text).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** A flag: `values` are its variations, `rules` pairs of [conditions, value], `rest` the value of everybody else. */
function flag(key, type, values, rules, rest, more = {}) {
  const variation = (value) => id(`${key} ${value}`);
  const rollout = (value) => [{ id: variation(value), rollout: [0, 1], exptRollout: 1 }];
  return {
    id: id(key), envId: ENV, name: key, key, description: '', variationType: type, revision: id(`revision of ${key}`),
    variations: values.map((value) => ({ id: variation(value), name: value, value })),
    targetUsers: [],
    rules: rules.map(([conditions, value], at) => ({
      id: id(`${key} rule ${at}`), name: `rule ${at}`, dispatchKey: 'keyId', includedInExpt: false, conditions,
      variations: rollout(value),
    })),
    isEnabled: true, disabledVariationId: variation(values.at(-1)), exptIncludeAllTargets: false, tags: [], isArchived: false,
    fallthrough: Array.isArray(rest)
      ? { dispatchKey: 'keyId', includedInExpt: false, variations: halves(rest.map(variation)) }
      : { dispatchKey: 'keyId', includedInExpt: false, variations: rollout(rest) },
    createdAt: '2024-01-01T00:00:00Z', updatedAt: '2024-01-01T00:00:00.123456Z', creatorId: ENV, updatorId: ENV,
    ...more,
  };
}

function halves([first, second]) {
  return [{ id: first, rollout: [0, 0.5], exptRollout: 1 }, { id: second, rollout: [0.5, 1], exptRollout: 1 }];
}

function condition(property, op, value) {
  return { id: id(`${property} ${op} ${value}`), property, op, value };
}

/** The flags: what SDKs and server evaluate alike. */
export function flags() {
  return [
    flag('theme', 'string', ['dark', 'light'], [[[condition('plan', 'Equal', 'pro')], 'dark']], 'light'),
    flag('checkout', 'boolean', ['true', 'false'], [[[condition('country', 'IsOneOf', '["DE","São Tomé"]')], 'true']], 'false'),
    flag('limit', 'number', ['10', '2.5'], [[[condition('seats', 'BiggerThan', '50')], '10']], '2.5'),
    flag('layout', 'json', ['{"a":[1,null,"ü"]}', '{}'], [[[condition('keyId', 'EndsWith', '7')], '{"a":[1,null,"ü"]}']], '{}'),
    flag('split', 'string', ['left', 'right'], [], ['left', 'right']),
    flag('staff', 'boolean', ['true', 'false'], [[[condition('User is in segment', '', JSON.stringify([id('staff')]))], 'true']], 'false'),
    flag('off', 'boolean', ['true', 'false'], [], 'true', { isEnabled: false }),
  ];
}

/** The segments. */
export function segments() {
  return [{
    id: id('staff'), envId: ENV, name: 'staff', key: 'staff', included: ['u-1'], excluded: ['u-2'], isArchived: false,
    rules: [{ id: id('staff rule'), name: 'ours', conditions: [condition('email', 'EndsWith', '@example.com')] }],
    createdAt: '2024-01-01T00:00:00Z', updatedAt: '2024-01-01T00:00:00Z',
  }];
}

/** A user, told apart in all of the flags. */
export function user(number) {
  return {
    keyId: `u-${number}`,
    name: `Name ${number}`,
    custom: {
      plan: ['pro', 'free'][number % 2], country: ['DE', 'US', 'São Tomé'][number % 3], seats: `${(number % 4) * 25}`,
      email: number % 5 ? `p${number}@example.org` : `p${number}@example.com`,
    },
  };
}

/** What each flag gives a user, as text. */
export function verdict(list, somebody) {
  return Object.fromEntries(list.map((one) => [one.key, valueOf(one, somebody)]));
}

function valueOf(one, { keyId, custom }) {
  const value = (wanted) => one.variations.find((variation) => variation.id === wanted)?.value;
  if (!one.isEnabled) return value(one.disabledVariationId);
  const property = (name) => (name === 'keyId' ? keyId : custom[name] ?? '');
  const isStaff = keyId !== 'u-2' && (keyId === 'u-1' || custom.email.endsWith('@example.com'));
  const holds = ({ property: name, op, value: wanted }) => {
    if (name === 'User is in segment') return isStaff;
    const own = property(name);
    return {
      Equal: () => own === wanted,
      IsOneOf: () => JSON.parse(wanted).includes(own),
      BiggerThan: () => Number(own) > Number(wanted),
      EndsWith: () => own.endsWith(wanted),
    }[op]();
  };
  const rule = one.rules.find(({ conditions }) => conditions.every(holds));
  const { variations } = rule ?? one.fallthrough;
  const place = Math.abs(createHash('md5').update(one.key + keyId).digest().readInt32LE(0) / -2147483648);
  return value(variations.find(({ rollout: [from, to] }) => (from === 0 && to === 1) || (from <= place && place <= to)).id);
}
