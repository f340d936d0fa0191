// The published browser client in headless Chromium, on a page of another origin than flagside.

import http from 'node:http';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';

import { browserClient, sdk } from './support/sdk.mjs';
import { chapter, check, eventually, expect, same } from './support/report.mjs';
import { flags, user } from './support/flags.mjs';
import { evaluate } from './support/engine.mjs';
import { startBefore, startCloud } from './support/processes.mjs';

// A browser that looks for nothing outside: no updates, no services of its maker.
const ARGUMENTS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const KEY = 'client-browser';

/** Serves the page with the client on it; gives its URL. */
async function servePage() {
  const script = await readFile(browserClient);
  const server = http.createServer((request, response) => {
    const isScript = request.url === '/client.js';
    response.writeHead(200, { 'Content-Type': isScript ? 'text/javascript' : 'text/html; charset=utf-8' });
    response.end(isScript ? script : '<!doctype html><title>page</title><link rel="icon" href="data:,"><script src="/client.js"></script>');
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  return { url: `http://localhost:${server.address().port}/`, close: () => server.close() };
}

/** Runs in the page: what a client says about a user, with a storage of its own. */
async function asked({ base, key, user, flagKeys, start }) {
  localStorage.clear();
  const client = new window.Experiment.ExperimentClient(key, {
    serverUrl: base, flagsServerUrl: base, retryFetchOnFailure: false, fetchTimeoutMillis: 5000,
    pollOnStart: false, automaticExposureTracking: false, throwOnError: true, logLevel: 0,
  });
  const began = performance.now();
  try {
    if (start) await client.start(user);
    else await client.fetch(user, flagKeys && { flagKeys });
    const variants = Object.fromEntries(Object.entries(client.all()).map(([name, one]) => [name, { ...one }]));
    return { variants, theme: { ...client.variant('theme', 'fallback') }, took: performance.now() - began };
  } catch (error) {
    return { error: String(error), status: error.statusCode, took: performance.now() - began };
  } finally {
    client.stop();
  }
}

/** Runs in the page: the status of a plain fetch, as far as the browser lets the page see it. */
async function statusOf({ url, headers }) {
  return fetch(url, { headers }).then((response) => response.status, (error) => String(error));
}

export async function run() {
  chapter('Browser client in Chromium');
  const { chromium } = sdk('playwright-core');
  const [cloud, page] = await Promise.all([startCloud(), servePage()]);
  const proxy = await startBefore(cloud);
  const profile = await mkdtemp(path.join(os.tmpdir(), 'flagside-chromium-'));
  const browser = await chromium.launchPersistentContext(profile, { executablePath: process.env.CHROMIUM, args: ARGUMENTS });
  const tab = await browser.newPage();
  await tab.goto(page.url);
  await inTheBrowser(cloud, proxy, tab);
  await browser.close();
  await rm(profile, { recursive: true, force: true });
  page.close();
  await check('flagside ends well', () => proxy.stop());
  cloud.stop();
}

async function inTheBrowser(cloud, proxy, tab) {
  const ask = (base, somebody, more = {}) => tab.evaluate(asked, { base, key: KEY, user: somebody, ...more });
  const wanted = (somebody, version) => Object.fromEntries(Object.entries(evaluate(flags(version), somebody)).map(([name, { key }]) => [name, key]));
  const keys = (variants) => Object.fromEntries(Object.entries(variants ?? {}).map(([name, { key }]) => [name, key]));

  await check('fetch gives what the cloud gives', async () => {
    for (let number = 0; number < 12; number += 1) {
      const [through, direct] = [await ask(proxy.url, user(number)), await ask(cloud.url, user(number))];
      expect(!through.error && !direct.error, through.error ?? direct.error);
      same([through.variants, through.theme], [direct.variants, direct.theme], user(number).user_id);
      same(keys(through.variants), wanted(user(number)), user(number).user_id);
    }
  });
  await check('fetch of some flags gives what the cloud evaluates', async () => {
    for (let number = 0; number < 4; number += 1) {
      const answer = await ask(proxy.url, user(number), { flagKeys: ['sale', 'tags'] });
      same(keys(answer.variants), keysOf(evaluate(flags(), user(number), ['sale', 'tags'])), answer.error);
    }
  });
  await check('start loads flags and variants through flagside, and gives what it gives without', async () => {
    for (let number = 20; number < 26; number += 1) {
      await cloud.takeAsked();
      const through = await ask(proxy.url, user(number), { start: true });
      const asked = await cloud.takeAsked();
      const direct = await ask(cloud.url, user(number), { start: true });
      expect(!through.error && !direct.error, through.error ?? direct.error);
      same([through.variants, through.theme], [direct.variants, direct.theme], user(number).user_id);
      expect(Object.keys(through.variants).length >= flags().length - 1, 'flags are missing');
      same(asked.filter(({ route }) => route === 'vardata').length, 1, 'questions');
      same(asked.filter(({ route }) => route === 'preflight').length, 0, 'preflights that reached the cloud');
    }
  });
  await check('a second fetch of a user asks the cloud nothing', async () => {
    await ask(proxy.url, user(40));
    await cloud.takeAsked();
    for (let times = 0; times < 5; times += 1) await ask(proxy.url, user(40));
    same(await cloud.count(), 0);
  });
  await check('a route that is passed through can be read by the page', async () => {
    const headers = { Authorization: `Api-Key ${KEY}`, 'X-Amp-Exp-Library': 'web/1' };
    same(await tab.evaluate(statusOf, { url: `${proxy.url}/web/v1/configs?a=b`, headers }), 200);
  });
  await check('the page sees the status of an error', async () => {
    const refused = await tab.evaluate(asked, { base: proxy.url, key: 'wrong', user: user(1) });
    const headers = { Authorization: 'Api-Key wrong', 'X-Amp-Exp-Library': 'x/1', 'X-Anything-Else': '1' };
    const statuses = [
      await tab.evaluate(statusOf, { url: `${proxy.url}/sdk/v2/vardata?v=0`, headers }),
      await tab.evaluate(statusOf, { url: `${proxy.url}/sdk/v2/vardata?v=0`, headers: {} }),
      await tab.evaluate(statusOf, { url: `${proxy.url}/no/such/path`, headers: {} }),
    ];
    same([/401/.test(refused.error), ...statuses], [true, 401, 401, 404], refused.error);
  });
  await check('users seen and unseen get their variants while the cloud hangs', () => outage(cloud, ask, 'hanging'));
  await check('users seen and unseen get their variants while the cloud refuses', () => outage(cloud, ask, 'refused'));

  async function outage(cloud, ask, fault) {
    await cloud.fail(fault);
    let slowest = 0;
    for (const number of [3, 40, 100, 101, 102]) {
      const id = fault === 'hanging' ? number : number + 100;
      const answer = await ask(proxy.url, user(id), { start: number > 100 });
      same(keys(answer.variants), wanted(user(id)), answer.error);
      slowest = Math.max(slowest, answer.took);
    }
    await cloud.fail(null);
    expect(slowest < 1000, `slowest ${Math.round(slowest)} ms`);
    return `slowest ${Math.round(slowest)} ms`;
  }

  await check('after the outages the cloud answers again', async () => {
    let stranger = 2000;
    await eventually('a question at the cloud', async () => {
      stranger += 1;
      await cloud.takeAsked();
      const answer = await ask(proxy.url, user(stranger));
      same(keys(answer.variants), wanted(user(stranger)), answer.error);
      return (await cloud.count()) > 0;
    }, 15);
  });
}

function keysOf(results) {
  return Object.fromEntries(Object.entries(results).map(([name, { key }]) => [name, key]));
}
