// @ts-check
/**
 * Types of the panel (JSDoc only; this module does nothing at run time).
 *
 * @typedef {{index: number, image_url: string, prompt: string}} Candidate
 *
 * @typedef {object} Query
 * @property {string} id
 * @property {string} profile
 * @property {number} round
 * @property {string} state "pending" | "answered" | "used" | "skipped"
 * @property {string[]} kinds the kinds of answer it takes: "pick", "rank", "rate", "skip"
 * @property {Candidate[]} candidates in the order in which they are shown
 * @property {Record<string, any> | null} answer
 * @property {number} created unix seconds
 * @property {number | null} used_by the revision that was trained with it
 *
 * @typedef {object} Revision
 * @property {number} revision 0 is the base
 * @property {number | null} parent
 * @property {number} created unix seconds
 * @property {number} ratings ratings seen by the profile when it was made
 * @property {Record<string, any>} report what the update did: loss, steps, seconds, …
 * @property {string[]} previews what it draws, in the order of the seeds; none without a VAE
 * @property {string | null} thumbnail the first preview, or the best liked image it learnt from
 *
 * @typedef {object} Profile
 * @property {string} name
 * @property {number} ratings
 * @property {number} rounds
 * @property {number} pending
 * @property {number} waiting answers that no update has used yet
 * @property {number} active the active revision
 * @property {Revision[]} revisions
 * @property {Learnt | null} learnt null before ED Query Designer has asked
 * @property {Budget | null} budget null without FKC Particles
 *
 * @typedef {{total: number, left: number}} Budget ratings that the person is willing to give
 *
 * @typedef {object} Learnt
 * @property {number} questions answered questions of ED Query Designer
 * @property {number} information what they told, in bits
 * @property {number | null} advised how many more are advised; null while nobody can tell
 * @property {WordEffect[]} words those that matter most, best first
 *
 * @typedef {{slot: string, word: string, effect: number, std: number}} WordEffect in nats
 *
 * @typedef {object} ProfileLine
 * @property {string} name
 * @property {number | null} ratings
 * @property {number | null} rounds
 * @property {number | null} revision
 * @property {number | null} pending
 * @property {boolean} busy another process has it open
 * @property {string | null} error why it cannot be opened
 *
 * @typedef {object} Marks what the person has marked so far, by candidate index
 * @property {number | null} best
 * @property {Record<number, number>} ratings 1 liked, −1 disliked
 * @property {number[]} ranking best first
 *
 * @typedef {{a: number | null, b: number | null}} Pair revisions chosen to compare
 *
 * @typedef {object} Strength how strongly the taste shows, as the open graph says
 * @property {number[]} values of the Taste Profile nodes where it can be set
 * @property {number} wired Taste Profile nodes that get it over a wire
 *
 * @typedef {{label: string, action: string, value: string}} NoteButton
 * @typedef {{text: string, button?: NoteButton}} Note
 * @typedef {{profile: string, done: number, total: number, stage: string}} Progress
 *
 * @typedef {object} State
 * @property {boolean} loaded
 * @property {boolean} connected
 * @property {boolean} running the server is working on something in its queue
 * @property {ProfileLine[]} profiles
 * @property {string | null} profileName
 * @property {Profile | null} profile
 * @property {Query[]} pending
 * @property {Query | null} query the open question
 * @property {Record<string, string>} nodes the node that asked, for questions queued in this tab
 * @property {string[]} own questions of runs of this tab that were not stopped
 * @property {Marks} marks
 * @property {Marks[]} undo earlier marks of the open question
 * @property {number} focus position of the image that the keys act on
 * @property {boolean} zoom one image at a time, as large as possible
 * @property {number} sendsIn milliseconds of grace before the marked best is sent; 0 when none runs
 * @property {boolean} busy an answer or a change of revision is on its way
 * @property {Query | null} sent the last question that was answered here
 * @property {Progress | null} progress
 * @property {Note | null} note
 * @property {string | null} error
 * @property {Record<string, boolean>} folds which of the folded sections are open
 * @property {Query[]} past questions that were used by an update, for the history
 * @property {string} pastOf what `past` was read for
 * @property {number} older how many rows of the timeline are shown
 * @property {Pair} pair
 * @property {number} seed which of the seeds of the previews is looked at
 * @property {Strength} strength
 * @property {boolean} keepAsking
 */

export {};
