// The consumer: the network's Node SDK, bundled, through all of its calls. Arguments: the bundle, and the plan as JSON.
// Prints one JSON object a line: {case, ok, detail}. Nothing of the SDK is replaced.
const [, , bundle, planned] = process.argv
const plan = JSON.parse(planned)
const sdk = require(bundle)
const heurist = new sdk.Heurist({ apiKey: plan.key, workflowURL: plan.url })
const { workflow } = heurist

const KINDS = { upscaler: sdk.UpscalerTask, txt2img: sdk.FluxLoraTask, txt2vid: sdk.Text2VideoTask }
const task = (kind, options) => new KINDS[kind]({ ...plan.tasks[kind], ...options })
const base = (options) => task(plan.base, options)
const slow = (options) => task(plan.base, { ...plan.slow, ...options })
const sleep = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds))
const wait = (one, seconds = plan.patience) => workflow.executeWorkflowAndWaitForResult(one, 1000 * seconds, 1000)

function require_(holds, said) {
  if (!holds) throw new Error(said)
}

async function until(id, ...statuses) {
  for (let left = plan.patience; left > 0; left -= 0.25) {
    const { status } = await workflow.queryTaskResult(id)
    if (statuses.includes(status)) return status
    await sleep(0.25)
  }
  throw new Error(`not ${statuses} in time`)
}

async function finished(one) {
  const ended = await wait(one)
  require_(ended.status === 'finished', `${ended.status}: ${JSON.stringify(ended.result)}`)
  if (typeof ended.result === 'string') return ended.result // a key in a bucket that devnet does not see
  const reply = await fetch(ended.result.url)
  require_(reply.ok, `its result answers ${reply.status}`)
  const size = (await reply.arrayBuffer()).byteLength
  require_(size > 0, 'its result is empty')
  return `${reply.headers.get('content-type')}, ${size} bytes`
}

async function failing(promise, words) {
  try {
    await promise
  } catch (error) {
    require_(String(error.message).includes(words), error.message)
    return error
  }
  throw new Error('it did not fail')
}

const cases = {
  ...Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, () => finished(task(kind))])),
  'execute, then query': async () => {
    const id = await workflow.executeWorkflow(base())
    return `${await until(id, 'waiting', 'running')}, ${await until(id, 'finished')}`
  },
  'cancel while waiting': async () => {
    const id = await workflow.executeWorkflow(base({ workflow_id: 'nobody-runs-this' }))
    const { task_id } = await workflow.cancelTask(id)
    require_(task_id === id, 'another id')
    return until(id, 'canceled')
  },
  'cancel while running': async () => {
    const id = await workflow.executeWorkflow(slow())
    await until(id, 'running')
    await sleep(0.5)
    await workflow.cancelTask(id)
    require_((await workflow.queryTaskResult(id)).status === 'canceled', 'not canceled')
    const begun = Date.now()
    await finished(base())
    return `the next one ended after ${((Date.now() - begun) / 1000).toFixed(1)} s`
  },
  'unknown id': async () => {
    const error = await failing(workflow.queryTaskResult('nothing'), 'nothing')
    await failing(workflow.cancelTask('nothing'), 'nothing')
    require_(error.errorDetails.status_code === 404, `status ${error.errorDetails.status_code}`)
  },
  'time-out of the wait': async () => {
    await failing(wait(slow({ timeout_seconds: 4 }), 1), 'Timeout waiting for task result')
  },
  'time-out of the task': async () => {
    const ended = await wait(slow({ timeout_seconds: 2 }))
    require_(ended.status === 'failed', ended.status)
    return ended.result.error
  },
  'a wrong parameter': async () => {
    const ended = await wait(base(plan.wrong))
    require_(ended.status === 'failed' && ended.result.error, JSON.stringify(ended))
    return ended.result.error
  },
  'resource request': () => workflow.resourceRequest('consumer', plan.tasks[plan.base].workflow_id),
}

async function main() {
  for (const [name, run] of Object.entries(cases)) {
    if (name in KINDS && !plan.tasks[name]) {
      console.log(JSON.stringify({ case: name, ok: null, detail: plan.without }))
      continue
    }
    try {
      console.log(JSON.stringify({ case: name, ok: true, detail: (await run()) || '' }))
    } catch (error) {
      console.log(JSON.stringify({ case: name, ok: false, detail: String(error.message) }))
    }
  }
}

main()
