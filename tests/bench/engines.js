// The TypeScript engine's side of tests/bench/engines: processor time per evaluation as one line of JSON.
//   node engines.js NODE_MODULES
'use strict';
const { readFileSync } = require('node:fs');
const path = require('node:path');

const modules = path.resolve(process.argv[2]);
const { EvaluationEngine, topologicalSort } = require(path.join(modules, '@amplitude/experiment-core'));
const user = '@amplitude/experiment-node-server/dist/src/util/user.js';
const { convertUserToEvaluationContext } = require(path.join(modules, user));

const RUNS = 7;
const RUN_MS = 300;
const WARM_MS = 700;

const vectors = path.join(__dirname, '..', 'vectors', 'engines');
const read = (name) => readFileSync(path.join(vectors, name), 'utf8');
const flags = JSON.parse(read('flags.json'));
const text = read('user.json').trim();
const engine = new EvaluationEngine();
let sink = 0;

/** Median processor time of `work` in nanoseconds; it returns a number, so that nothing is optimized away. */
function measure(work) {
  const times = [];
  for (let run = -1; run < RUNS; run++) {
    const [began, cpu] = [performance.now(), process.cpuUsage()];
    let rounds = 0;
    do {
      for (let i = 0; i < 50; i++) sink += work();
      rounds += 50;
    } while (performance.now() - began < (run < 0 ? WARM_MS : RUN_MS));
    const spent = process.cpuUsage(cpu);
    if (run >= 0) times.push(((spent.user + spent.system) * 1000) / rounds);
  }
  return times.sort((one, two) => one - two)[RUNS >> 1];
}

const byKey = (list) => Object.fromEntries(list.map((flag) => [flag.key, flag]));
const context = convertUserToEvaluationContext(JSON.parse(text));
const lines = {};
for (const [suffix, number] of [['', flags.length], ['-10', 10]]) {
  const sorted = topologicalSort(byKey(flags.slice(0, number)));
  const whole = () => engine.evaluate(convertUserToEvaluationContext(JSON.parse(text)), sorted);
  lines[`engine${suffix}`] = measure(() => Object.keys(engine.evaluate(context, sorted)).length);
  lines[`parse+engine+serialize${suffix}`] = measure(() => JSON.stringify(whole()).length);
}
const keys = {};
for (const [key, variant] of Object.entries(engine.evaluate(context, topologicalSort(byKey(flags))))) {
  keys[key] = variant.key;
}
console.log(JSON.stringify({ node: process.version, lines, keys, sink }));
