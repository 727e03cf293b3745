BEGIN TRANSACTION;
CREATE TABLE evaluations (
	id INTEGER NOT NULL, 
	cell VARCHAR(64) NOT NULL, 
	macro TEXT NOT NULL, 
	fidelity VARCHAR(200) NOT NULL, 
	training_seed BIGINT NOT NULL, 
	evaluator VARCHAR(200) NOT NULL, 
	candidate TEXT NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	accuracy FLOAT, 
	macs FLOAT, 
	params FLOAT, 
	seconds FLOAT NOT NULL, 
	reason TEXT NOT NULL, 
	metrics TEXT NOT NULL, 
	recorded_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT one_result_per_key UNIQUE (cell, macro, fidelity, training_seed, evaluator)
);
INSERT INTO "evaluations" VALUES(1,'19ffb1fce43670a4158e52a6428d84c6','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["x","y","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',86.719,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(2,'4e5ebc2770efaa7fc5bee5ce6c87b0e4','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["x","u","v"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',82.019,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(3,'91008d22059633c35f7b3a824333aab4','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["v","x","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',86.274,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(4,'b34d61117eb3be0becaf44df21889dcb','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["v","z","u"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',83.746,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(5,'b8fc51aa8d8aa1aba3a6415d25695cbe','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["z","u","u"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',81.656,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(6,'b1c73f60bdb9b659df533658ba104d1e','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["w","w","u"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',81.936,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(7,'bc0ea2fdedaebb18374c6da206fd8592','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","u","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',85.293,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(8,'ff81c7601c5c8da27e1f0d46b91b3865','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["x","v","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',85.709,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(9,'5be5c7bdd6a57d212df5d6ac6f8491bd','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["w","v","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',84.302,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(10,'d05d833640c42413712c6a11f225424d','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","z","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',87.718,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(11,'6a70ff1b79c9f6d353fa3f0cbea60e9e','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","v","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',84.974,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(12,'a60aad1d339a1c733c627334a560c52e','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["v","z","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',86.556,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(13,'b9da22651c2269180ffbf2e5c158c5ca','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["v","u","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',84.27,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(14,'47f230c8081a819adc4e88e03c1f390f','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","z","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',88.57,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(15,'b566b50f9234881d0ebea29bdc0526df','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","u","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',84.328,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(16,'b035f92e57d36042ede3b8bf18ec6e7c','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["w","z","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',86.936,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(17,'070d1190ddb745d6ef17fe32f30e06d9','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["x","z","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',88.352,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(18,'921dbf61af7533b17e22a3d5cafe88dd','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","u","w"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',83.238,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(19,'993bf3ee5594bb64b344342a22c4744c','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["x","y","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',87.737,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
INSERT INTO "evaluations" VALUES(20,'b642d8ea7ad00a6650609d8752ae29d5','{}','{"epochs":1,"resolution":null,"subset":1.0}',0,'db51f21411e824af','{"cell":{"ops":["y","v","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','ok',85.999,NULL,NULL,0.0,'','{}','2026-11-28T16:49:29+00:00');
CREATE TABLE proposals (
	search VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	candidate TEXT NOT NULL, 
	fidelity VARCHAR(200) NOT NULL, 
	training_seed BIGINT NOT NULL, 
	PRIMARY KEY (search, number)
);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',0,'{"cell":{"ops":["x","y","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',1,'{"cell":{"ops":["x","u","v"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',2,'{"cell":{"ops":["v","x","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',3,'{"cell":{"ops":["v","z","u"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',4,'{"cell":{"ops":["z","u","u"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',5,'{"cell":{"ops":["w","w","u"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',6,'{"cell":{"ops":["y","u","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',7,'{"cell":{"ops":["x","v","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',8,'{"cell":{"ops":["w","v","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',9,'{"cell":{"ops":["y","z","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',10,'{"cell":{"ops":["y","v","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',11,'{"cell":{"ops":["v","z","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',12,'{"cell":{"ops":["v","u","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',13,'{"cell":{"ops":["y","z","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',14,'{"cell":{"ops":["y","u","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',15,'{"cell":{"ops":["w","z","x"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',16,'{"cell":{"ops":["x","z","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',17,'{"cell":{"ops":["y","u","w"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',18,'{"cell":{"ops":["x","y","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
INSERT INTO "proposals" VALUES('cecb2ba29e9a4d299c3e93fcfac5a92a',19,'{"cell":{"ops":["y","v","y"],"edges":[[0,1],[1,2],[2,3],[3,4]]},"macro":{}}','{"epochs":1,"resolution":null,"subset":1.0}',0);
COMMIT;
