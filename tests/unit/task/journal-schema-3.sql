BEGIN TRANSACTION;
CREATE TABLE pictures (
        task_id   TEXT NOT NULL,
        miner_id  TEXT NOT NULL,
        width     INTEGER NOT NULL,    -- pixels of the result
        height    INTEGER NOT NULL,
        thumbnail BLOB NOT NULL,       -- WebP
        PRIMARY KEY (task_id, miner_id)
    );
CREATE TABLE tasks (
        task_id    TEXT NOT NULL,
        miner_id   TEXT NOT NULL,
        step       TEXT NOT NULL,      -- policy.Step, then 'closed'
        workflow   TEXT NOT NULL DEFAULT '',
        prompt_id  TEXT NOT NULL DEFAULT '',
        record     TEXT,               -- JSON of the stage's dataclass; erased when closed
        outcome    TEXT,               -- JSON of the Outcome
        verdict    TEXT NOT NULL DEFAULT '',  -- how it was closed: sequencer.Ack, or 'taken away'
        leased_at  REAL NOT NULL,
        ended_at   REAL, task_type TEXT NOT NULL DEFAULT '', facts TEXT, lease TEXT,
        PRIMARY KEY (task_id, miner_id)
    ) WITHOUT ROWID;
INSERT INTO "tasks" VALUES('again','0x0000000000000000000000000000000000000001','prompted','upscaler','p-again','{"lease": {"task_id": "again", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1007.0, "fault": ""}, "workflow": "upscaler", "values": {"seed": 1, "x": 0.5, "on": true}, "images": {"image": "https://example.org/a.png"}, "deadline": 1060.0}',NULL,'',1007.0,NULL,'upscaler',NULL,'{"task_id": "again", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/anew?signature=very-secret", "headers": {}}, "timeout_seconds": 60.0, "leased_at": 1007.0, "fault": ""}');
INSERT INTO "tasks" VALUES('answered','0x0000000000000000000000000000000000000001','answered','upscaler','p-answered','{"job": {"lease": {"task_id": "answered", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1005.0, "fault": ""}, "workflow": "upscaler", "values": {"seed": 1, "x": 0.5, "on": true}, "images": {"image": "https://example.org/a.png"}, "deadline": 1060.0}, "key": "out", "size": 7, "inference_latency": 1.5, "upload_latency": 0.5}','{"task_id": "answered", "success": true, "result": "out", "inference_latency": 1.5, "upload_latency": 0.5, "msg": ""}','',1005.0,NULL,'upscaler','{"prepare": null, "queue": null, "render": 1.5, "deliver": null, "total": 3.0, "size": 7}',NULL);
INSERT INTO "tasks" VALUES('closed','0x0000000000000000000000000000000000000001','closed','upscaler','p-closed',NULL,'{"task_id": "closed", "success": true, "result": "out", "inference_latency": 1.5, "upload_latency": 0.5, "msg": ""}','acknowledged',1006.0,1005.0,'upscaler','{"prepare": null, "queue": null, "render": 1.5, "deliver": null, "total": 3.0, "size": 7}',NULL);
INSERT INTO "tasks" VALUES('leased','0x0000000000000000000000000000000000000001','leased','','','{"task_id": "leased", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1000.0, "fault": ""}',NULL,'',1000.0,NULL,'upscaler',NULL,NULL);
INSERT INTO "tasks" VALUES('prepared','0x0000000000000000000000000000000000000001','prepared','upscaler','','{"lease": {"task_id": "prepared", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1001.0, "fault": ""}, "workflow": "upscaler", "values": {"seed": 1, "x": 0.5, "on": true}, "images": {"image": "https://example.org/a.png"}, "deadline": 1060.0}',NULL,'',1001.0,NULL,'upscaler',NULL,NULL);
INSERT INTO "tasks" VALUES('prompted','0x0000000000000000000000000000000000000001','prompted','upscaler','p-prompted','{"lease": {"task_id": "prompted", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1002.0, "fault": ""}, "workflow": "upscaler", "values": {"seed": 1, "x": 0.5, "on": true}, "images": {"image": "https://example.org/a.png"}, "deadline": 1060.0}',NULL,'',1002.0,NULL,'upscaler',NULL,NULL);
INSERT INTO "tasks" VALUES('rendered','0x0000000000000000000000000000000000000001','rendered','upscaler','p-rendered','{"job": {"lease": {"task_id": "rendered", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1003.0, "fault": ""}, "workflow": "upscaler", "values": {"seed": 1, "x": 0.5, "on": true}, "images": {"image": "https://example.org/a.png"}, "deadline": 1060.0}, "prompt_id": "p-rendered", "files": [{"filename": "a.png", "subfolder": "x", "kind": "output"}], "inference_latency": 1.5}',NULL,'',1003.0,NULL,'upscaler',NULL,NULL);
INSERT INTO "tasks" VALUES('stranger','0x0000000000000000000000000000000000000001','answered','','',NULL,'{"task_id": "stranger", "success": false, "result": "", "inference_latency": 0.0, "upload_latency": 0.0, "msg": "lost"}','',1005.0,NULL,'',NULL,NULL);
INSERT INTO "tasks" VALUES('torn','0x0000000000000000000000000000000000000001','leased','','','{"torn',NULL,'',1009.0,NULL,'upscaler',NULL,NULL);
INSERT INTO "tasks" VALUES('uploaded','0x0000000000000000000000000000000000000001','uploaded','upscaler','p-uploaded','{"job": {"lease": {"task_id": "uploaded", "task_type": "upscaler", "workflow_id": "4", "parameters": {"image": "https://example.org/a.png", "odd": [NaN, 1, null]}, "target": {"url": "https://store.example/out?signature=very-secret", "headers": {"x-a": "b"}}, "timeout_seconds": 60.0, "leased_at": 1004.0, "fault": ""}, "workflow": "upscaler", "values": {"seed": 1, "x": 0.5, "on": true}, "images": {"image": "https://example.org/a.png"}, "deadline": 1060.0}, "key": "out", "size": 7, "inference_latency": 1.5, "upload_latency": 0.5}',NULL,'',1004.0,NULL,'upscaler',NULL,NULL);
CREATE INDEX tasks_open ON tasks (miner_id, leased_at) WHERE step != 'closed';
CREATE INDEX tasks_ended ON tasks (ended_at);
CREATE TRIGGER task_forgotten AFTER DELETE ON tasks BEGIN
        DELETE FROM pictures WHERE task_id = old.task_id AND miner_id = old.miner_id;
    END;
COMMIT;
PRAGMA user_version = 3;
